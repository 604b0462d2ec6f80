"""How many cores other processes take while something is measured."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import psutil

from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.hardware import usable_cores

# More is a loaded machine. An operation waits for its slowest thread, so that it is taken cores that count and not
# their share: an idle service takes about 0.1, the competitor of a measurement 0.4, which changes what is best.
LOADED_CORES = 0.25
# On large machines something always runs somewhere: not before it takes this share of the cores.
LOADED_SHARE = 0.05


@dataclass(frozen=True)
class Reading:
    """Seconds: without stops, of processor time of all, and of this process and those that it started."""

    awake: float
    busy: float
    own: float


class OtherLoad:
    """Mean over spans of time that were measured in. Time that a hypervisor takes is nobody's here: no process of this
    machine, and nothing that would be otherwise later."""

    def __init__(self, clock: AwakeClock) -> None:
        self._clock = clock
        self._me = psutil.Process()
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        self._awake = self._taken = 0.0

    def read(self) -> Reading:
        """The beginning of a span."""
        return Reading(self._clock.seconds(), self._busy_seconds(), self._own_seconds())

    def add(self, begin: Reading) -> None:
        """Counts the span from `begin` until now, in which nobody was stopped."""
        now = self.read()
        self._awake += now.awake - begin.awake
        self._taken += (now.busy - begin.busy) - (now.own - begin.own)

    @property
    def cores(self) -> float:
        """Cores that others kept busy of those that this process may use: in a container with fewer than the machine
        has, others may use the rest."""
        spare = (len(self._cores) if self._cores else os.cpu_count() or 1) - usable_cores()
        return max(0.0, self._taken / self._awake - spare) if self._awake else 0.0

    @property
    def is_loaded(self) -> bool:
        """Whether others took so much that what was measured may not hold without them."""
        return self.cores > max(LOADED_CORES, LOADED_SHARE * usable_cores())

    def _busy_seconds(self) -> float:
        times = psutil.cpu_times(percpu=True)
        mine = [times[core] for core in self._cores if core < len(times)] if self._cores else times
        kinds = ("user", "nice", "system", "irq", "softirq")
        return sum(getattr(core, kind, 0.0) for core in mine for kind in kinds)

    def _own_seconds(self) -> float:
        """With processes that have ended and were waited for."""
        found = 0.0
        for process in (self._me, *self._me.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found += times.user + times.system + times.children_user + times.children_system
        return found
