"""The tuner as the service drives it: stopped and continued at any moment, bounded in memory, its progress told."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import ModelFileError, Tuning, Tunings
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.measuring_lock import MACHINE_LOCK as LOCK
from deployments.model.engine.other_load import LOADED_CORES, LOADED_SHARE
from deployments.model.engine.progress import WAITING, Progress
from deployments.model.engine.room import BOUND_BYTES, BOUND_FACTOR
from deployments.model.engine.tuning import holds_measurement, keep_fault, save
from tests.support.autotune import ALL_GIVEN, AutotuneRun, autotune
from tests.support.second_model import second_model_file

# On a machine that does other things as well.
pytestmark = pytest.mark.timeout(3000)
STOP_SECONDS = 3.0


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AutotuneRun]:
    """A whole search for other weights, stopped once in the first measurement and once in a comparison."""
    folder = tmp_path_factory.mktemp("searched")
    given = {name: value for name, value in ALL_GIVEN.items() if name != "huge_pages"}
    with autotune(bundled_model_file(), folder / "record.json", "auto", given) as run:
        run.read_until("first measurement")
        run.stop_while_measuring(STOP_SECONDS)
        run.read_until("wait_policy passive")
        run.stop_while_measuring(STOP_SECONDS)
        assert run.finish() == (0, "")
        yield run


def test_rounds_in_which_it_was_stopped_are_measured_again(searched: AutotuneRun) -> None:
    assert searched.measured()["rounds_repeated"] == 2


def test_time_in_which_it_was_stopped_does_not_count(searched: AutotuneRun) -> None:
    assert searched.measured()["seconds"] <= searched.wall_seconds - 2 * STOP_SECONDS


def test_what_other_processes_took_is_told(searched: AutotuneRun) -> None:
    measured = searched.measured()
    assert measured["loaded"] is (measured["others_cores"] > max(LOADED_CORES, LOADED_SHARE * usable_cores()))


def test_each_step_is_told_when_it_begins_and_when_it_is_done(searched: AutotuneRun) -> None:
    told = [Progress(**line) for line in searched.lines]
    begun, done = told[::2], told[1::2]
    assert [line.step for line in begun] == [line.step for line in done]
    assert [line.done for line in begun] == list(range(len(begun)))
    assert [line.done for line in done] == list(range(1, len(begun) + 1))
    assert begun[0].seconds_left is None
    assert all(line.seconds_left is not None for line in done)
    assert done[-1].done == done[-1].of
    assert done[-1].seconds_left == 0
    steps = [line.step for line in begun]
    assert steps[:4] == ["first measurement", "weights BF16", "weights Q8_0", "quality of weights"]
    assert steps[-1] == "wait_policy passive"


def test_what_is_given_is_not_tried(searched: AutotuneRun) -> None:
    tried = {entry["setting"] for entry in searched.measured()["settings"]}
    assert tried <= {"huge_pages", "wait_policy"}
    assert "wait_policy" in tried


def test_all_processes_together_stay_below_the_bound(searched: AutotuneRun) -> None:
    _assert_bounded(searched, bundled_model_file())


def test_versions_that_were_not_chosen_are_removed(searched: AutotuneRun) -> None:
    chosen = json.loads(searched.record.read_text())["weights"]
    left = [str(file) for file in searched.record.parent.iterdir() if ".gguf" in file.name]
    assert left == ([chosen] if chosen else [])


def test_a_vocabulary_of_262k_tokens_stays_below_the_bound(tmp_path: Path) -> None:
    model = second_model_file()
    with autotune(model, tmp_path / "record.json", "auto", ALL_GIVEN) as run:
        assert run.finish() == (0, "")
        _assert_bounded(run, model)
        for version in run.measured()["weights"]["versions"].values():
            assert "divergence_nats" in version or "no room" in version["fault"]


def test_a_fault_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = _cut_off_model(tmp_path)
    tunings = Tunings(tmp_path / "tuning")
    tuning = tunings.obtain(model, "auto")
    assert "a first measurement failed" in tuning.measured["fault"]
    assert "broken.gguf cannot be loaded" in tuning.measured["fault"]
    assert tuning.is_provisional
    assert tunings.find(model, "auto") == tuning, "for the report"
    before = tunings.record(model, "auto").stat().st_mtime_ns
    assert tunings.obtain(model, "auto") == tuning
    assert tunings.record(model, "auto").stat().st_mtime_ns > before


def test_a_fault_does_not_replace_a_measurement(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    earlier = Tuning(n_threads=1, measured={"loaded": True, "seconds": 1.0})
    save(earlier, record)
    with autotune(_cut_off_model(tmp_path), record, "as_is") as run:
        status, errors = run.finish()
    assert status == 1
    assert "a first measurement failed" in errors
    assert holds_measurement(record)
    assert run.measured() == earlier.measured
    keep_fault(tmp_path / "other.json", "why")
    assert not holds_measurement(tmp_path / "other.json")


def test_a_second_measurement_waits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    waits = threading.Event()

    def note(progress: Progress) -> None:
        told.append(progress)
        if progress.step == WAITING:
            waits.set()

    tunings, found = Tunings(tmp_path / "tuning"), []
    model = _cut_off_model(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with _another_measurement(tmp_path):
        thread = threading.Thread(target=lambda: found.append(tunings.obtain(model, "auto", note)))
        thread.start()
        waits.wait()
        assert [progress.step for progress in told] == [WAITING]
    thread.join()
    assert found[0].is_fault
    assert [progress.step for progress in told[1:]] == ["first measurement", "first measurement"]


def test_what_somebody_else_measured_meanwhile_is_not_measured_again(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    with _another_measurement(tmp_path) as measuring, autotune(bundled_model_file(), record, "as_is") as run:
        run.read_until(WAITING)
        save(Tuning(n_threads=1, measured={"seconds": 1.0}), record)
        measuring.close()
        assert run.finish() == (0, "")
    assert run.lines == [line for line in run.lines if line["step"] == WAITING]
    assert run.measured() == {"seconds": 1.0}


@pytest.mark.parametrize("name", ["missing.gguf", "text.gguf"])
def test_what_is_no_model_fails_at_once_behind_another_measurement(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    model = tmp_path / name
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with _another_measurement(tmp_path):
        with pytest.raises(ModelFileError, match=name):
            Tunings(tmp_path).obtain(model, "auto")
        with autotune(model, tmp_path / "record.json", "auto") as run:
            status, errors = run.finish()
    assert status == 1
    assert name in errors
    assert run.lines == []
    assert not (tmp_path / "record.json").exists()


def test_it_ends_with_the_process_that_started_it_even_while_it_is_stopped(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the kernel does not tell")
    command = [sys.executable, "-m", "deployments.model.engine.autotune", bundled_model_file(), tmp_path / "r.json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    starter = (
        "import subprocess, sys, time, json\n"
        "p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True, start_new_session=True)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter, *map(str, command), "as_is"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    group = int(process.stdout.readline())
    os.killpg(group, signal.SIGSTOP)
    process.kill()
    process.wait()
    while _lives(group):
        time.sleep(0.05)


@contextlib.contextmanager
def _another_measurement(folder: Path) -> Iterator[TextIO]:
    """Somebody holds the lock of a machine with that temporary folder, until the block ends or the file is closed."""
    with (folder / LOCK.name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _cut_off_model(folder: Path) -> Path:
    model = folder / "broken.gguf"
    model.write_bytes(bundled_model_file().read_bytes()[:100_000])
    return model


def _assert_bounded(run: AutotuneRun, model: Path) -> None:
    size = model.stat().st_size
    assert run.memory.samples > 100
    assert size < run.memory.bytes <= BOUND_FACTOR * size + BOUND_BYTES
