"""The measurement of the bundled model on this very machine, and the bound of quality that it keeps."""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest, Tuning, Tunings
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.huge_pages import has_huge_pages
from deployments.model.engine.measuring_lock import MACHINE_LOCK
from deployments.model.engine.progress import Progress
from deployments.model.engine.quality import compare
from deployments.model.engine.tuning import save
from deployments.model.engine.verification.run_config import RunConfig
from deployments.model.engine.weights import WeightFormat, requantise
from tests.support.product import TUNING


def test_choice_is_explained_by_what_was_measured(tuning: Tuning) -> None:
    weights = tuning.measured["weights"]
    assert weights["bound"] == {"perplexity_change": 0.01, "divergence_nats": 0.02}
    versions = weights["versions"]
    is_loaded = tuning.measured["loaded"]
    assert is_loaded or set(versions) == {"BF16", "Q8_0"}, "on a loaded machine, the model may seem too slow for it"
    for version in versions.values():
        assert 0 <= version["divergence_nats"] < 0.1
        assert 0.9 < version["perplexity_ratio"] < 1.1
        assert 0.5 < version["same_top"] <= 1
        assert version["within_bound"] is True
        assert set(version["gain"]) == {"1", "8", "16"}
    assert tuning.format in {"as given", *versions}
    assert tuning.measured["seconds"] > 0
    assert tuning.is_provisional is is_loaded
    assert 1 <= (tuning.n_threads or 0) <= usable_cores()
    assert is_loaded or {entry["setting"] for entry in tuning.measured["settings"]} >= {
        "wait_policy",
        "n_batch",
        "n_ubatch",
        "flash_attention",
        "kv_unified",
        *(["huge_pages"] if has_huge_pages() else []),
    }


async def test_tuned_model_answers(tuning: Tuning) -> None:
    options = tuning.applied(EngineOptions(max_sequence_tokens=256, max_slots=2))
    engine = Engine(tuning.model_file(bundled_model_file()), options)
    try:
        prompt = engine.render_chat([{"role": "user", "content": "What is the capital of France?"}])
        text = ""
        async for item in engine.generate(GenerationRequest(tuple(prompt), max_tokens=24, temperature=0)):
            text += "" if isinstance(item, Finish) else item.text
        assert text.strip(), "what it says goes by the weights that were chosen"
    finally:
        engine.close()


def test_measured_once(tuning: Tuning) -> None:
    files = {file: file.stat().st_mtime_ns for file in TUNING.iterdir() if file.suffix in (".json", ".gguf")}
    assert Tunings(TUNING).obtain(bundled_model_file(), "auto") == tuning
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_measured_again_when_the_weights_or_the_record_are_gone(tuning: Tuning, tmp_path: Path) -> None:
    tunings = Tunings(tmp_path)
    record = Tunings(TUNING).record(bundled_model_file(), "auto")
    (tmp_path / record.name).write_bytes(record.read_bytes())
    assert tunings.find(bundled_model_file(), "auto") == tuning
    assert tunings.find(bundled_model_file(), "as_is") is None, "another policy is another measurement"
    found = json.loads(record.read_text())
    (tmp_path / record.name).write_text(json.dumps(found | {"weights": str(tmp_path / "gone.gguf")}))
    assert tunings.find(bundled_model_file(), "auto") is None
    (tmp_path / record.name).write_text('{"damaged')
    assert tunings.find(bundled_model_file(), "auto") is None


def test_record_holds_for_what_runs_here(tuning: Tuning) -> None:
    plain = RunConfig().choices()
    assert Tunings(TUNING, plain).find(bundled_model_file(), "auto") == tuning, "nothing is given up"
    without = Tunings(TUNING, RunConfig(repack=False).choices())
    assert without.record(bundled_model_file(), "auto") != Tunings(TUNING).record(bundled_model_file(), "auto")
    assert without.find(bundled_model_file(), "auto") is None


@pytest.mark.parametrize(
    ("measured", "is_provisional"),
    [({}, False), ({"loaded": False}, False), ({"loaded": True}, True), ({"fault": "no memory"}, True)],
)
def test_what_is_to_be_measured_again(measured: dict[str, Any], is_provisional: bool, tmp_path: Path) -> None:
    tunings = Tunings(tmp_path)
    save(Tuning(measured=measured), tunings.record(bundled_model_file(), "as_is"))
    found = tunings.find(bundled_model_file(), "as_is")
    assert found is not None
    assert found.is_provisional is is_provisional
    assert found.is_fault is ("fault" in measured)


def test_weights_that_lose_too_much_are_out_of_bound(tmp_path: Path) -> None:
    poor = tmp_path / "poor.gguf"
    requantise(bundled_model_file(), poor, WeightFormat("Q4_0", 2, 18 / 32), usable_cores())
    quality = compare(bundled_model_file(), {"poor": poor, "same": bundled_model_file()}, usable_cores())
    assert not quality["poor"].is_within_bound
    assert quality["poor"].divergence_nats > 0.1
    assert quality["same"].is_within_bound
    assert quality["same"].divergence_nats < 1e-6
    assert quality["same"].same_top == 1


def test_what_was_measured_is_found_while_another_model_is_being_measured(tuning: Tuning) -> None:
    progress: list[Progress] = []
    with MACHINE_LOCK.open("a") as measuring:
        # Where that fails, another measurement goes on.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(measuring, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert Tunings(TUNING).obtain(bundled_model_file(), "auto", progress.append) == tuning
    assert progress == []
