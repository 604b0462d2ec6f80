"""A process of the tuner's that loads llama.cpp: what it does not survive ends nothing else, and its memory is free
again when it ends. Tasks and answers are lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from deployments.model.engine import backend
from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.backend import BackendError
from deployments.model.engine.errors import EngineError
from deployments.model.engine.parent_death import die_with_parent


class TaskProcess:
    """Runs a module whose main is `serve`. `choices` are those of the process: what `backend.select` takes."""

    def __init__(
        self, module: str, clock: AwakeClock, choices: dict[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        self._clock = clock
        # The command is this interpreter.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, json.dumps({"backend": choices})],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def ask(self, task: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
        """Has a task done. `stopped` in the answer says whether the process was stopped meanwhile. Raises EngineError
        when it fails, ends, or takes longer than `limit_seconds` without stops."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        try:
            asked.write(json.dumps(task) + "\n")
        except OSError as error:
            raise EngineError("it does not run that way here") from error
        if not self._clock.wait(answers, limit_seconds):
            raise EngineError(f"it took longer than {limit_seconds:.0f} s")
        line = answers.readline()
        if not line:
            raise EngineError("it does not run that way here")
        answer = json.loads(line)
        if "fault" in answer:
            raise EngineError(answer["fault"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def serve(do: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The process's side: answers tasks until its input ends, with the `fault` of those that fail."""
    die_with_parent()
    stops: list[int] = []
    signal.signal(signal.SIGCONT, lambda number, _frame: stops.append(number))
    # Answers only: whatever libraries print goes nowhere.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _select_backend(json.loads(sys.argv[1]))
    for line in sys.stdin:
        stops.clear()
        try:
            answer = do(json.loads(line))
        except (EngineError, BackendError, OSError, TypeError, ValueError) as error:
            answer = {"fault": str(error)}
        answers.write(json.dumps(answer | {"stopped": bool(stops)}) + "\n")


def _select_backend(task: dict[str, Any]) -> None:
    """Chooses the compiled code before llama.cpp is loaded. What cannot be had fails the first task."""
    backend.select(**task["backend"])
