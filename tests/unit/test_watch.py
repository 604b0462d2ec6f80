"""Work that is watched."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from deployments.model.engine.watch import TookTooLong, Watch, work_is_left


def test_the_result_or_the_error_of_work_is_that_of_a_call() -> None:
    watch = Watch()
    assert [watch.run(lambda number=number: number * 2, 1.0, after=pytest.fail) for number in (1, 2)] == [2, 4]
    with pytest.raises(ZeroDivisionError):
        watch.run(lambda: 1 // 0, 1.0, after=pytest.fail)
    assert watch.run(lambda: "goes on", 1.0, after=pytest.fail) == "goes on"


def test_work_that_takes_too_long_is_left_and_cleared_away_at_its_end() -> None:
    watch, may_end, cleared = Watch(), threading.Event(), threading.Event()

    def burn() -> None:
        while not may_end.is_set():
            pass

    with pytest.raises(TookTooLong):
        watch.run(burn, 0.05, after=cleared.set)
    assert work_is_left()
    assert not cleared.is_set()
    assert watch.run(lambda: "goes on", 1.0, after=pytest.fail) == "goes on"
    may_end.set()
    assert cleared.wait(30)


def test_work_that_waits_for_a_core_is_not_slow() -> None:
    def rest() -> str:
        time.sleep(0.3)
        return "done"

    assert Watch().run(rest, 0.05, after=pytest.fail) == "done"


def test_work_is_not_slow_where_garbage_is_collected_beside_it() -> None:
    gc.collect()  # what the tests before have left
    began = time.thread_time()
    gc.collect()
    one = time.thread_time() - began

    def collect() -> str:
        for _ in range(5):
            gc.collect()
        return "done"

    assert Watch().run(collect, 2 * one, after=pytest.fail) == "done"
