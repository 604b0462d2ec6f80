"""Measures how this machine runs the model best while nobody needs it, and then has it run that way.

    waiting --the machine is quiet--> measuring <--somebody asks / quiet again--> paused
    measuring --done--> adopting --the next quiet moment--> adopted, or kept for the next start

The measurement is a process group of its own, which is stopped (SIGSTOP) the moment that somebody uses the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import orjson
import psutil

from deployments.model.live_engine import LiveEngine

logger = logging.getLogger(__name__)

# Nobody has used the engine for so long: people who read an answer ask again within it more often than after it.
QUIET_SECONDS = 5.0
# Cores that other processes may use on a quiet machine: the service's own take about a fifth of one when it rests.
QUIET_CORES = 0.6
LOOK_SECONDS = 1.0
# After a measurement that failed, or was made on a loaded machine.
AGAIN_SECONDS = 3600.0
REPORT_SHARE = 0.25

State = Literal["off", "measured", "waiting", "measuring", "paused", "adopting", "adopted", "next start", "failed"]


@dataclass
class Progress:
    """How far the measurement is, for operators."""

    state: State = "waiting"
    step: str = ""
    done: int = 0
    of: int = 0
    seconds_left: float | None = None
    detail: str = ""


class BackgroundTuning:
    """The measurement of one replica's model. `command` makes it; `adopt` is called with the engine quiet when it is
    done, and returns what came of it, and whether that is final: not to be measured again."""

    def __init__(
        self, model_id: str, live: LiveEngine, command: list[str], adopt: Callable[[], Awaitable[tuple[Progress, bool]]]
    ) -> None:
        self._model_id = model_id
        self._live = live
        self._command = command
        self._adopt = adopt
        self._process: asyncio.subprocess.Process | None = None
        self._told = 0.0
        self.progress = Progress()
        live.when_used.append(self._pause)

    async def run(self) -> None:
        """Measures and adopts, again after a while where that failed or other processes disturbed it. Returns when it
        is final."""
        while not await self._once():  # noqa: ASYNC110 it waits for time to pass, not for an event
            await asyncio.sleep(AGAIN_SECONDS)

    async def _once(self) -> bool:
        self.progress = Progress()
        await self._quiet()
        logger.info("measuring how this machine runs %s best, while nobody uses it", self._model_id)
        try:
            status, reason = await self._measure()
        finally:
            self._kill()
        if status != 0:
            self.progress = Progress("failed", detail=reason)
            logger.warning("%s could not be measured, and runs as before: %s", self._model_id, reason)
            return False
        self.progress.state = "adopting"
        await self._quiet()
        self.progress, is_final = await self._adopt()
        logger.info("%s has been measured: %s", self._model_id, self.progress.detail or self.progress.state)
        return is_final

    async def _measure(self) -> tuple[int, str]:
        """The process's exit status, and the last that it said."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.progress.state = "measuring"
        if not self._live.idle_seconds:  # somebody has come meanwhile
            self._pause()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        errors = asyncio.create_task(self._process.stderr.read())
        resuming = asyncio.create_task(self._resume_when_quiet())
        try:
            async for line in self._process.stdout:
                self._note(line)
            status = await self._process.wait()
        finally:
            resuming.cancel()
        lines = (await errors).decode("utf-8", "replace").strip().splitlines()
        return status, lines[-1] if lines else f"it ended with {status}"

    def _note(self, line: bytes) -> None:
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
            found = orjson.loads(line)
            told = self.progress
            told.step, told.done, told.of = found["step"], found["done"], found["of"]
            told.seconds_left = found["seconds_left"]
            share = told.done / max(1, told.of)
            if share >= self._told + REPORT_SHARE:
                self._told = share
                left = f", {told.seconds_left / 60:.0f} min of quiet left" if told.seconds_left else ""
                logger.info("measuring %s: %.0f %%%s", self._model_id, 100 * share, left)

    async def _resume_when_quiet(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.progress.state == "paused" and self._live.idle_seconds > QUIET_SECONDS:
                self._signal(signal.SIGCONT)
                self.progress.state = "measuring"

    async def _quiet(self) -> None:
        """Returns when nobody has used the engine for a while, and other processes leave the cores alone."""
        while True:
            before, began = _busy_seconds(), time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            used = (_busy_seconds() - before) / (time.monotonic() - began)
            if self._live.idle_seconds > QUIET_SECONDS and used < QUIET_CORES:
                return

    def _pause(self) -> None:
        if self.progress.state == "measuring":
            self._signal(signal.SIGSTOP)
            self.progress.state = "paused"

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """To the whole group. One whose leader has ended may be another's by now."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Ends the measurement, if one is going on."""
        self._kill()


def _busy_seconds() -> float:
    """Processor time that all processes of the machine have used."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
