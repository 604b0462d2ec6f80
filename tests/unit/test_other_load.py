"""How many cores other processes take: those of the measurement itself are no others."""

from __future__ import annotations

import time

import psutil
import pytest

from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.other_load import LOADED_CORES, OtherLoad, Reading
from tests.support.autotune import busy_process, busy_stranger, cpu_seconds

BUSY_SECONDS = 1.0


@pytest.fixture
def load() -> OtherLoad:
    return OtherLoad(AwakeClock())


def test_a_process_that_was_started_here_is_no_other(load: OtherLoad) -> None:
    begin = load.read()
    with busy_process() as process:
        _wait_until_busy(process)
        living = load.read()
    ended = load.read()
    assert living.own - begin.own >= BUSY_SECONDS
    assert ended.own >= living.own, "its time stays when it has ended"
    assert living.busy - begin.busy >= 0.5 * BUSY_SECONDS


def test_a_process_that_somebody_else_started_is_one(load: OtherLoad) -> None:
    begin = load.read()
    with busy_stranger() as process:
        _wait_until_busy(process)
        end = load.read()
    assert (end.busy - begin.busy) - (end.own - begin.own) >= 0.5 * BUSY_SECONDS


def test_a_quarter_of_a_core_is_a_loaded_machine(load: OtherLoad, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.model.engine.other_load.usable_cores", lambda: len(psutil.cpu_times(percpu=True)))
    monkeypatch.setattr(load, "_cores", None)
    for taken, loaded in ((0.2, False), (0.3, True)):
        load._awake = load._taken = 0.0
        monkeypatch.setattr(load, "read", lambda taken=taken: Reading(awake=10, busy=30, own=30 - 10 * taken))
        load.add(Reading(0, 0, 0))
        assert load.cores == pytest.approx(taken)
        expected = loaded and load.cores > max(LOADED_CORES, 0.05 * len(psutil.cpu_times(percpu=True)))
        assert load.is_loaded is expected


def _wait_until_busy(process: psutil.Process) -> None:
    while cpu_seconds(process) < BUSY_SECONDS:
        time.sleep(0.01)
