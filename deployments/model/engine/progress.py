"""How far a measurement is: a line of JSON for each step begun or done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
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
    """The steps of a measurement, in any order, with what each is expected to cost beside the others. `report` gets
    their progress."""

    def __init__(self, clock: AwakeClock, report: Callable[[Progress], None]) -> None:
        self._clock = clock
        self._report = report
        self._left: dict[str, float] = {}
        self._done = 0
        self._spent_cost = self._spent_seconds = 0.0

    def plan(self, costs: Mapping[str, float]) -> None:
        """Adds steps to come, by their names."""
        self._left |= costs

    def drop(self, *names: str) -> None:
        """Takes out steps that will not come."""
        self._left = {name: cost for name, cost in self._left.items() if name not in names}

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
            self._spent_cost += self._left.pop(name)
            self._done += 1
            self._spent_seconds += self._clock.seconds() - began
            self._tell(name)

    def _tell(self, name: str) -> None:
        left = None
        if self._done:
            left = round(self._spent_seconds / self._spent_cost * sum(self._left.values()), 1)
        self._report(Progress(self._done, self._done + len(self._left), name, left))
