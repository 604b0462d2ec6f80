"""What is known of a replica that a signal ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments.model.crash_log import Crash, CrashLog, conclusive
from deployments.model.engine.verification.run_config import RunConfig
from deployments.model.owner import own_name

REPLICA = """
import os, sys
from pathlib import Path
from deployments.model.crash_log import CrashLog
from deployments.model.engine.verification.run_config import RunConfig
from deployments.model.owner import own_name
log = CrashLog(Path(sys.argv[1]), "default", own_name())
log.begin(RunConfig(flash_attention=False), tuned=True)
if sys.argv[2] == "ready":
    log.ready()
if int(sys.argv[3]):
    os.kill(os.getpid(), int(sys.argv[3]))
"""


def end(folder: Path, how: int, state: str = "ready") -> list[Crash]:
    """The crashes that are known after a replica has ended by the signal `how`, 0: in order."""
    folder.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", REPLICA, str(folder), state, str(how)], check=False, capture_output=True)
    return CrashLog(folder, "default", own_name()).collect()


@pytest.mark.parametrize("how", [signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS])
def test_a_crash_is_known_with_the_way_that_was_run(how: signal.Signals, tmp_path: Path) -> None:
    (crash,) = end(tmp_path, how)
    assert crash.config == RunConfig(flash_attention=False)
    assert crash.tuned
    assert crash.reason
    assert crash.seconds_ready is not None
    assert 0 <= crash.seconds_ready < 60


def test_a_crash_before_the_engine_answered_is_told_apart(tmp_path: Path) -> None:
    (crash,) = end(tmp_path, signal.SIGILL, "starting")
    assert crash.seconds_ready is None


@pytest.mark.parametrize("how", [0, signal.SIGKILL, signal.SIGTERM])
def test_an_end_in_order_or_by_somebody_else_is_no_crash(how: int, tmp_path: Path) -> None:
    assert end(tmp_path, how) == []
    assert list(tmp_path.iterdir()) == []


def test_a_replica_that_runs_is_left_alone(tmp_path: Path) -> None:
    log = CrashLog(tmp_path, "default", own_name())
    log.collect()
    log.begin(RunConfig(), tuned=False)
    assert CrashLog(tmp_path, "default", own_name()).collect() == []
    assert len(list(tmp_path.iterdir())) == 1


def crash(seconds_ready: float | None) -> Crash:
    return Crash(RunConfig(), False, "Illegal instruction", seconds_ready, time.time())


def test_a_crash_soon_after_the_start_is_laid_to_the_way_that_runs() -> None:
    assert conclusive([crash(2.0)]) == {(RunConfig(), False): "the replica crashed: Illegal instruction"}
    assert conclusive([crash(None)]) == {(RunConfig(), False): "the replica crashed: Illegal instruction"}


def test_a_later_crash_is_when_it_happens_again_and_again() -> None:
    assert conclusive([crash(900.0), crash(700.0)]) == {}
    assert conclusive([crash(900.0), crash(200.0), crash(100.0)]) == {
        (RunConfig(), False): "the replica crashed 3 times: Illegal instruction"
    }
