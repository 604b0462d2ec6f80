"""Rounds of measurements of the bundled model, by real processes that are stopped and disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psutil
import pytest

from deployments.config import bundled_model_file
from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.choices import Choices
from deployments.model.engine.errors import EngineError
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.prober import Prober, Way
from deployments.model.engine.rounds import Rounds
from tests.support.autotune import busy_stranger, cpu_seconds

# On a machine that does other things as well.
pytestmark = pytest.mark.timeout(1500)
WAY = Way(bundled_model_file(), {"n_threads": usable_cores()})
FEWER_THREADS = Way(bundled_model_file(), {"n_threads": max(1, usable_cores() - 1)})
# Enough for all that is measured of the bundled model.
ROOM_BYTES = 1 << 30


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    clock = AwakeClock()
    with closing(Prober(clock, Choices(), ROOM_BYTES)) as prober:
        yield Rounds(clock, prober)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)


def test_a_round_in_which_the_prober_was_stopped_is_measured_again(rounds: Rounds) -> None:
    rounds.first(WAY)
    with _measuring_is_stopped_once():
        base, new = rounds.pair(WAY, FEWER_THREADS, busy=False, swapped=False)
    assert rounds.repeated == 1
    assert all(speed.prefill > 0 and set(speed.decode) == {1, 8, 16} for speed in (base, new))


def test_a_round_in_which_this_process_was_continued_is_measured_again(rounds: Rounds) -> None:
    rounds.first(WAY)
    with _continued_while_measuring(os.getpid()):
        rounds.pair(WAY, FEWER_THREADS, busy=True, swapped=True)
    assert rounds.repeated == 1


def test_a_round_that_nobody_disturbed_is_measured_once(rounds: Rounds) -> None:
    rounds.first(WAY)
    assert rounds.ratio(WAY, WAY, (False, True), swapped=False) > 0
    assert rounds.repeated == 0


def test_a_process_that_is_busy_beside_them_is_noticed(rounds: Rounds) -> None:
    with busy_stranger():
        rounds.first(WAY)
    assert rounds.others.cores > 0.25


def test_a_way_that_does_not_run_says_why_and_the_next_one_runs(rounds: Rounds) -> None:
    with pytest.raises(EngineError, match="unexpected keyword argument 'no_such_option'"):
        rounds.first(Way(bundled_model_file(), {"no_such_option": 1}))
    assert rounds.first(WAY).overall > 0


@contextlib.contextmanager
def _measuring_is_stopped_once() -> Iterator[None]:
    """The prober is stopped while it measures inside."""
    probe = next(child for child in psutil.Process().children() if "probe" in " ".join(child.cmdline()))

    def stop() -> None:
        _wait_until_it_computes(probe)
        probe.suspend()
        time.sleep(1)
        probe.resume()

    with _beside(stop):
        yield


@contextlib.contextmanager
def _continued_while_measuring(pid: int) -> Iterator[None]:
    """A process gets the signal that it goes on while its prober measures inside."""
    probe = next(child for child in psutil.Process().children() if "probe" in " ".join(child.cmdline()))

    def go_on() -> None:
        _wait_until_it_computes(probe)
        os.kill(pid, signal.SIGCONT)

    with _beside(go_on):
        yield


def _wait_until_it_computes(process: psutil.Process) -> None:
    used = cpu_seconds(process)
    while cpu_seconds(process) == used:
        time.sleep(0.005)


@contextlib.contextmanager
def _beside(do: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        thread.join()
