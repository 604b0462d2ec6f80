"""How far a measurement is: a line of JSON for each step begun or done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deployments.model.engine.awake_clock import AwakeClock

WAITING = "waiting for another measurement"


@dataclass(frozen=True)
class Progress:
    """`done` steps of `of`, which may change; `step` is the one that was begun or done. `seconds_left` without stops,
    None until a step is done."""

    done: int
    of: int
    step: str
    seconds_left: float | None = None

    @classmethod
    def parse(cls, line: str) -> Progress:
        """Raises ValueError, TypeError where the line is none of autotune's."""
        return cls(**json.loads(line))

    def line(self) -> str:
        """JSON, without a line's end."""
        return json.dumps(dataclasses.asdict(self))


class Steps:
    """The steps of a measurement, in any order. `report` gets their progress."""

    def __init__(self, clock: AwakeClock, report: Callable[[Progress], None]) -> None:
        self._clock = clock
        self._report = report
        self._left: list[str] = []
        self._done = 0
        self._spent_seconds = 0.0

    def plan(self, names: Iterable[str]) -> None:
        """Adds steps to come."""
        self._left += names

    def drop(self, *names: str) -> None:
        """Takes out steps that will not come."""
        self._left = [name for name in self._left if name not in names]

    def waits(self) -> None:
        """Reports that nothing can be begun yet."""
        self._tell(WAITING)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Reports a planned step when it begins, and when it is done or has failed."""
        self._tell(name)
        began = self._clock.seconds()
        try:
            yield
        finally:
            self._left.remove(name)
            self._done += 1
            self._spent_seconds += self._clock.seconds() - began
            self._tell(name)

    def _tell(self, name: str) -> None:
        left = self._spent_seconds / self._done * len(self._left) if self._done else None
        rounded = None if left is None else round(left, 1)
        self._report(Progress(self._done, self._done + len(self._left), name, rounded))
