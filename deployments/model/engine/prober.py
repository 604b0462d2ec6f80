"""Ways to run a model, and a process that measures one after another (probe.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.choices import Choices
from deployments.model.engine.errors import EngineError
from deployments.model.engine.parent_death import die_with_parent
from deployments.model.engine.probe import ANSWER_TOKENS, PROMPT_TOKENS
from deployments.model.engine.task_process import TaskProcess

# Longest wait for a measurement, which loads the model first: a large one from a slow disk.
PROBE_SECONDS = 240.0
# What the other processes of a busy service take: 40 % of a core, in slices of a millisecond. Ends with who began it.
COMPETITOR = (
    "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent:\n    end = time.perf_counter() + 0.001\n"
    "    while time.perf_counter() < end: pass\n    time.sleep(0.0015)"
)


@dataclass(frozen=True)
class Way:
    """One way to run a model. `options` are EngineOptions'. What is measured are answers, or with `prompt_tokens` one
    prompt of so many."""

    model: Path
    options: dict[str, Any]
    wait_policy: str = "default"
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Speed:
    """What was measured: seconds a prompt's token, and seconds a step by its rows (none where one prompt was)."""

    prefill: float
    decode: dict[int, float]

    def tokens_per_second(self, concurrency: int) -> float:
        """Output tokens a second of so many requests at once, each of 60 tokens of prompt and 64 of answer."""
        seconds = concurrency * PROMPT_TOKENS * self.prefill + ANSWER_TOKENS * self.decode[concurrency]
        return concurrency * ANSWER_TOKENS / seconds

    @property
    def overall(self) -> float:
        """One figure, the higher the faster."""
        return geometric_mean(map(self.tokens_per_second, self.decode)) if self.decode else 1 / self.prefill


class Stopped(Exception):
    """A process was stopped while it measured: what it found says nothing."""


class Prober:
    """One process at a time, with one model loaded in it at a time. `room_bytes` is what the process may take."""

    def __init__(self, clock: AwakeClock, choices: Choices, room_bytes: int) -> None:
        self._clock = clock
        self._choices = choices
        self._room_bytes = room_bytes
        self._process: TaskProcess | None = None
        self._wait_policy = ""
        self._rows: list[int] | None = None
        # Of the first way that was measured.
        self.facts: dict[str, Any] = {}

    def measure(self, way: Way) -> Speed:
        """Raises Stopped, or EngineError when the model does not run that way here, or too slowly."""
        if way.wait_policy != self._wait_policy:
            self.close()
        process = self._process = self._process or self._started(way.wait_policy)
        task = {"model": str(way.model), "options": way.options, "prompt_tokens": way.prompt_tokens}
        try:
            answer = process.ask(task | {"rows": self._rows, "room_bytes": self._room_bytes}, PROBE_SECONDS)
        except EngineError:
            self.close()
            raise
        if not self.facts:
            self.facts, self._rows = answer["facts"], answer["facts"]["rows"]
        if answer["stopped"]:
            raise Stopped
        return Speed(answer["prefill"], {int(rows): seconds for rows, seconds in answer.get("decode", {}).items()})

    def _started(self, wait_policy: str) -> TaskProcess:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        if wait_policy != "default":
            environment["OMP_WAIT_POLICY"] = wait_policy
        self._wait_policy = wait_policy
        return TaskProcess("deployments.model.engine.probe", self._clock, self._choices.process, environment)

    def close(self) -> None:
        """Ends the process; another begins with the next measurement."""
        if self._process:
            self._process.close()
        self._process = None


@contextmanager
def competitor(wanted: bool) -> Iterator[None]:
    """Where `wanted`, somebody else uses the cores meanwhile."""
    if not wanted:
        yield
        return
    # The command is this interpreter. It is started by a process with one thread, in which forking is safe.
    process = subprocess.Popen([sys.executable, "-ISc", COMPETITOR], preexec_fn=die_with_parent)  # noqa: S603
    try:
        yield
    finally:
        process.kill()
        process.wait()
