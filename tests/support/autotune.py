"""The tuner as the service starts it: a process group of its own, whose lines are read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from deployments.model.engine.hardware import usable_cores
from tests.support.peak_memory import PeakMemory

# Given, and therefore not tried: what is left is the shortest search.
ALL_GIVEN = {
    "n_threads": usable_cores(),
    "n_batch": 512,
    "n_ubatch": 512,
    "flash_attention": True,
    "kv_unified": False,
    "huge_pages": False,
}


class AutotuneRun:
    """One run of autotune."""

    def __init__(self, model: Path, record: Path, policy: str, options: dict[str, Any] | None = None) -> None:
        self.record = record
        choices = json.dumps({"own_kernels": True, "cpu_variant": None, "options": options or {}})
        module = "deployments.model.engine.autotune"
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(model), str(record), policy, choices],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # With a lock of its own: it waits for no measurement but those of the test.
            env=os.environ | {"TMPDIR": str(record.parent)},
            start_new_session=True,
        )
        self.memory = PeakMemory(self.process.pid)
        self._began = time.monotonic()
        self.wall_seconds = 0.0
        self.lines: list[dict[str, Any]] = []

    def read_until(self, step: str) -> None:
        """Reads lines until a step is begun."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            if self.lines[-1]["step"] == step:
                return
        raise AssertionError(f"{step} was never begun: {self.lines}")

    def finish(self) -> tuple[int, str]:
        """Reads the rest; returns the exit status and what it said of errors."""
        rest, errors = self.process.communicate()
        self.wall_seconds = time.monotonic() - self._began
        self.lines += map(json.loads, rest.splitlines())
        return self.process.returncode, errors

    def measured(self) -> dict[str, Any]:
        """What the record says was measured."""
        return json.loads(self.record.read_text())["measured"]

    def stop_while_measuring(self, seconds: float) -> None:
        """Stops the whole group in the middle of a measurement, for so long."""
        probe = self.probe()
        used = cpu_seconds(probe)
        while cpu_seconds(probe) == used:
            time.sleep(0.005)
        os.killpg(self.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(self.process.pid, signal.SIGCONT)

    def probe(self) -> psutil.Process:
        """The process that measures now, waited for."""
        while True:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "deployments.model.engine.probe" in child.cmdline():
                        return child
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@contextlib.contextmanager
def autotune(model: Path, record: Path, policy: str, options: dict[str, Any] | None = None) -> Iterator[AutotuneRun]:
    """A run that ends with the block."""
    run = AutotuneRun(model, record, policy, options)
    try:
        with run.memory.watching():
            yield run
    finally:
        run.kill()


@contextlib.contextmanager
def busy_process() -> Iterator[psutil.Popen]:
    """A child that keeps a core busy."""
    process = psutil.Popen([sys.executable, "-ISc", "while True: pass"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def busy_stranger() -> Iterator[psutil.Process]:
    """A process that keeps a core busy, and is nobody's child."""
    start = (
        "import subprocess, sys; command = [sys.executable, '-ISc', 'while True: pass']; "
        "print(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid)"
    )
    process = psutil.Process(int(subprocess.check_output([sys.executable, "-c", start])))
    try:
        yield process
    finally:
        process.kill()


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that it has used."""
    times = process.cpu_times()
    return times.user + times.system
