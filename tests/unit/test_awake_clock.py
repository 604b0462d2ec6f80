"""A clock that leaves out the time in which its process was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

# Waits for its input to end, without a limit that matters, and says what it saw.
WAITER = """
import json, sys
from deployments.model.engine.awake_clock import AwakeClock
clock = AwakeClock()
print("ready", flush=True)
found = clock.wait(sys.stdin, float(sys.argv[1]))
print(json.dumps({"readable": found, "stops": clock.stops, "seconds": clock.seconds()}), flush=True)
"""


@pytest.mark.parametrize("times", [1, 3])
def test_stops_are_counted_and_their_time_is_not(times: int) -> None:
    process = _waiter(1000)
    began = time.monotonic()
    for _ in range(times):
        _stop(process, 0.5)
    answer, _ = process.communicate()
    found = json.loads(answer)
    assert found["stops"] >= 1
    assert found["seconds"] <= time.monotonic() - began - times * 0.5


def test_a_limit_does_not_pass_while_stopped() -> None:
    process = _waiter(4.0)
    _stop(process, 5.0)
    assert process.stdin is not None
    process.stdin.write("in time")
    answer, _ = process.communicate()
    assert json.loads(answer)["readable"] is True


def test_a_limit_passes_otherwise() -> None:
    process = _waiter(0.3)
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    process.communicate()
    assert found["readable"] is False
    assert found["seconds"] >= 0.3


def _waiter(limit_seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(limit_seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _stop(process: subprocess.Popen[str], seconds: float) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
