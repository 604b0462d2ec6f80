"""The measurement of the bundled model on this very machine, and the bound of quality that it keeps."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest, Tuning, Tunings
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.huge_pages import has_huge_pages
from deployments.model.engine.quality import compare
from deployments.model.engine.weights import WeightFormat, requantise
from tests.support.product import TUNING


def test_choice_is_explained_by_what_was_measured(tuning: Tuning) -> None:
    weights = tuning.measured["weights"]
    assert weights["bound"] == {"perplexity_change": 0.01, "divergence_nats": 0.02}
    versions = weights["versions"]
    assert set(versions) == {"BF16", "Q8_0"}
    for version in versions.values():
        assert 0 <= version["divergence_nats"] < 0.1
        assert 0.9 < version["perplexity_ratio"] < 1.1
        assert 0.5 < version["same_top"] <= 1
        assert version["within_bound"] is True
        assert set(version["gain"]) == {"1", "8", "16"}
    assert tuning.format in {"as given", *versions}
    assert 1 <= (tuning.n_threads or 0) <= usable_cores()
    assert {entry["setting"] for entry in tuning.measured["settings"]} >= {
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
    # Records of other builds may lie beside it.
    record = next(file for file in TUNING.glob("*.json") if json.loads(file.read_text())["measured"] == tuning.measured)
    (tmp_path / record.name).write_bytes(record.read_bytes())
    assert tunings.find(bundled_model_file(), "auto") == tuning
    assert tunings.find(bundled_model_file(), "as_is") is None, "another policy is another measurement"
    found = json.loads(record.read_text())
    (tmp_path / record.name).write_text(json.dumps(found | {"weights": str(tmp_path / "gone.gguf")}))
    assert tunings.find(bundled_model_file(), "auto") is None
    (tmp_path / record.name).write_text('{"damaged')
    assert tunings.find(bundled_model_file(), "auto") is None


def test_model_that_cannot_be_measured_runs_as_it_is_and_says_why(tmp_path: Path) -> None:
    model = tmp_path / "broken.gguf"
    model.write_bytes(bundled_model_file().read_bytes()[:100_000])
    tuning = Tunings(tmp_path / "tuning").obtain(model, "auto")
    assert "a first measurement failed" in tuning.measured["fault"]
    assert replace(tuning, measured={}) == Tuning()


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
    with (TUNING / "lock").open("w") as measuring:
        fcntl.flock(measuring, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert Tunings(TUNING).obtain(bundled_model_file(), "auto") == tuning
