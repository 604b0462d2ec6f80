"""Measurements in rounds. What is compared is measured in turns, moments apart, since a busy machine may be a fifth
slower for seconds; a round in which a process was stopped is measured again."""

from __future__ import annotations

from collections.abc import Callable
from statistics import geometric_mean
from typing import TypeVar

from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.other_load import OtherLoad
from deployments.model.engine.prober import Prober, Speed, Stopped, Way, competitor

T = TypeVar("T")


class Rounds:
    """Measures ways to run a model with one prober."""

    def __init__(self, clock: AwakeClock, prober: Prober) -> None:
        self._clock = clock
        self._prober = prober
        self.others = OtherLoad(clock)
        # Rounds that were measured again.
        self.repeated = 0

    def first(self, way: Way) -> Speed:
        """One measurement. Raises EngineError."""
        return self._whole(lambda: self._prober.measure(way))

    def pair(self, base: Way, new: Way, busy: bool, swapped: bool) -> tuple[Speed, Speed]:
        """One measurement of each in one round, where `busy` with a competitor for the cores. `swapped`: the new one
        first. Raises EngineError."""

        def measure() -> list[Speed]:
            with competitor(busy):
                return [self._prober.measure(way) for way in ((new, base) if swapped else (base, new))]

        first, second = self._whole(measure)
        return (second, first) if swapped else (first, second)

    def ratio(self, base: Way, new: Way, competitors: tuple[bool, ...], swapped: bool) -> float:
        """How many times as fast `new` is as `base` now: the mean without and with a competitor, as given."""
        pairs = [self.pair(base, new, busy, swapped) for busy in competitors]
        return geometric_mean(found.overall / before.overall for before, found in pairs)

    def _whole(self, measure: Callable[[], T]) -> T:
        """Measures until nobody was stopped from the beginning to the end. Each attempt takes as long as the
        measurement: on a machine that is never quiet it goes on for ever, stopped most of the time."""
        while True:
            stops, begin = self._clock.stops, self.others.read()
            try:
                found = measure()
            except Stopped:
                self.repeated += 1
                continue
            if self._clock.stops == stops:
                self.others.add(begin)
                return found
            self.repeated += 1
