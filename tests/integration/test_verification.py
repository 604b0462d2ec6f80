"""A way to run the model that crashes or computes wrongly is found out, and another is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine.backend import variants
from deployments.model.engine.verification.answers import fault_of, largest_error
from deployments.model.engine.verification.checker import Task, check
from deployments.model.engine.verification.reference import References
from deployments.model.engine.verification.run_config import Capabilities, RunConfig, ladder, plainest
from deployments.model.engine.verification.verifier import Candidate, NothingRuns, Verifier
from tests.support.broken_library import ILLEGAL, WRONG, copy_libraries, cpu_libraries, overwrite

TASK = Task(bundled_model_file(), {})
CANDIDATE = Candidate(TASK, TASK)

needs_variants = pytest.mark.skipif(len(variants()) < 2, reason="llama.cpp was compiled without CPU variants")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, list[str]], None]:
    """Breaks the product of the bundled model's weights in CPU variants, for processes that begin from now on."""

    def break_variants(code: bytes, names: list[str]) -> None:
        folder = copy_libraries(tmp_path / "lib")
        for library in cpu_libraries(folder):
            if library.stem.removeprefix("libggml-cpu-") in names:
                overwrite(library, code)
        monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(folder))

    return break_variants


def test_the_model_runs_as_it_is_on_this_machine(tmp_path: Path) -> None:
    verified = Verifier(tmp_path, "one").obtain(CANDIDATE)
    assert verified.config == RunConfig()
    assert verified.faults == []


def test_what_was_verified_is_not_verified_again(tmp_path: Path) -> None:
    steps: list[str] = []
    first = Verifier(tmp_path, "one").obtain(CANDIDATE, steps.append)
    assert steps
    steps.clear()
    assert Verifier(tmp_path, "two").obtain(CANDIDATE, steps.append) == first
    assert steps == []


@needs_variants
def test_the_best_and_the_plainest_way_answer_as_the_shipped_reference(tmp_path: Path) -> None:
    capabilities = Capabilities(cpu_variants=variants())
    reference = References(tmp_path).obtain(TASK, capabilities)
    assert list(tmp_path.iterdir()) == [], "the bundled model's comes with the product"
    assert reference.answers
    for config in (RunConfig(), plainest(capabilities)):
        checked = check(TASK, config)
        assert checked.answers is not None, f"{config}: {checked.fault}"
        assert fault_of(checked.answers, reference.answers) is None, str(config)
        assert largest_error(checked.answers, reference.answers) < 0.5


@needs_variants
@pytest.mark.parametrize(
    ("code", "reason"), [(ILLEGAL, "it was ended by SIGILL"), (WRONG, "answer 1 ")], ids=["crashes", "wrong"]
)
def test_a_broken_variant_is_not_used(
    code: bytes, reason: str, broken: Callable[[bytes, list[str]], None], tmp_path: Path
) -> None:
    broken(code, [variants()[0]])
    verified = Verifier(tmp_path / "record", "one").obtain(CANDIDATE)
    assert verified.config == RunConfig(cpu_variant=variants()[1])
    assert verified.faults[0].config == RunConfig()
    assert verified.faults[0].reason.startswith(reason)
    assert verified.describe()["given_up"] == [f"llama.cpp's best CPU variant ({variants()[1]} computes)"]


@needs_variants
def test_faults_are_tried_again_at_the_next_start_and_not_before(
    broken: Callable[[bytes, list[str]], None], tmp_path: Path
) -> None:
    broken(ILLEGAL, [variants()[0]])
    Verifier(tmp_path / "record", "one").obtain(CANDIDATE)
    steps: list[str] = []
    Verifier(tmp_path / "record", "one").obtain(CANDIDATE, steps.append)
    assert steps == []
    Verifier(tmp_path / "record", "two").obtain(CANDIDATE, steps.append)
    assert steps[0] == "checking that this machine computes right"


@needs_variants
def test_where_nothing_runs_every_way_that_was_tried_is_named(
    broken: Callable[[bytes, list[str]], None], tmp_path: Path
) -> None:
    broken(ILLEGAL, list(variants()))
    with pytest.raises(NothingRuns, match="SIGILL") as caught:
        Verifier(tmp_path / "record", "one").obtain(CANDIDATE)
    tried = [fault.config for fault in caught.value.faults]
    assert tried[0] == RunConfig()
    assert tried[-1].small_batches
    assert len(set(tried)) == len(tried)


def test_a_way_that_failed_afterwards_is_not_used_again_in_the_same_session(tmp_path: Path) -> None:
    verifier = Verifier(tmp_path, "one")
    verified = verifier.obtain(CANDIDATE)
    verifier.reject(CANDIDATE, verified.config, "the replica crashed: Illegal instruction")
    other = verifier.obtain(CANDIDATE)
    assert other.config != verified.config
    assert other.faults[0].reason == "the replica crashed: Illegal instruction"
    assert Verifier(tmp_path, "two").obtain(CANDIDATE).config == verified.config


def test_ways_are_given_up_in_order_one_at_a_time_first() -> None:
    ways = list(ladder(Capabilities(True, ("zen4", "icelake", "haswell", "x64")), uses_gpu=False))
    assert [str(way) for way in ways[:7]] == [
        "as it is",
        "without the engine's own kernels",
        "without weights in the layout of AMX and other kernels",
        "without llama.cpp's best CPU variant (haswell computes)",
        "without llama.cpp's best CPU variant (x64 computes)",
        "without flash attention",
        "without batches: each row is computed alone",
    ]
    assert ways[-1] == RunConfig(
        own_kernels=False, cpu_variant="x64", repack=False, flash_attention=False, small_batches=True
    )
    assert len(set(ways)) == len(ways)
