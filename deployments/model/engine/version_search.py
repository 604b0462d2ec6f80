"""Finds a version of a model in another number format that is faster here and as good."""

from __future__ import annotations

import dataclasses
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.choices import Choices
from deployments.model.engine.errors import EngineError
from deployments.model.engine.hardware import detect_hardware
from deployments.model.engine.prober import Prober, Speed, Way
from deployments.model.engine.progress import Steps
from deployments.model.engine.quality import MOST_DIVERGENCE_NATS, MOST_PERPLEXITY_CHANGE, Quality
from deployments.model.engine.room import Room
from deployments.model.engine.rounds import Rounds
from deployments.model.engine.setting_search import may_have_huge_pages
from deployments.model.engine.task_process import TaskProcess
from deployments.model.engine.tuning import GIVEN
from deployments.model.engine.weights import FORMATS, WeightFormat

# Rounds for each version, without and with a competitor for the cores each: a service has both hours.
WEIGHT_ROUNDS = 4
# Other weights must be worth the disk and the memory they take, and one person alone may not lose more than this.
LEAST_GAIN, LEAST_ALONE = 1.15, 0.9
# A model that reads the text of quality.py slower than this is too large to be measured, or to gain.
SLOWEST_PREFILL_SECONDS = 0.05
# Longest conversion, and longest comparison: minutes for the largest models that are tried.
CONVERSION_SECONDS = COMPARISON_SECONDS = 1200.0
QUALITY_STEP = "quality of weights"
# By these begins the name of a step that makes a version, and of one that measures its speed.
MAKE, SPEED = "weights", "speed of"
MAKE_COST, QUALITY_COST = 1.0, 12.0

Report = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The way to run the model from now on, the format of its weights, and what is reported."""

    way: Way
    format: str
    report: Report


class VersionSearch:
    """Makes versions, compares them with the given model, and measures them against it. `folder` and `stem` say where
    versions are kept; those that are there are not made again."""

    def __init__(self, way: Way, clock: AwakeClock, steps: Steps, choices: Choices, room: Room, record: Path) -> None:
        self._way = way
        self._clock = clock
        self._steps = steps
        self._choices = choices
        self._room = room
        self._record = record

    @staticmethod
    def planned() -> dict[str, float]:
        """Its steps where all versions turn out well, and what they cost in measurements of answers."""
        made = {f"{MAKE} {wanted.name}": MAKE_COST for wanted in FORMATS}
        measured = {f"{SPEED} {wanted.name}": 4.0 * WEIGHT_ROUNDS for wanted in FORMATS}
        return made | {QUALITY_STEP: QUALITY_COST} | measured

    def run(self, given: Speed, prober: Prober, rounds: Rounds) -> Outcome:
        """The fastest version within the bound of quality, or the given model."""
        report: Report = {"policy": "auto", "bound": _bound(), "versions": {}}
        if given.prefill > SLOWEST_PREFILL_SECONDS:
            self._steps.drop(*self.planned())
            return self._as_given(report, "the model is too large for this machine to compare versions of it")
        prober.close()  # one model at a time
        made = self._make_versions(report["versions"], prober.facts)
        good = self._good_ones(made, report["versions"])
        if not made:
            return self._as_given(report, "there is no room for another version")
        gains: dict[str, dict[int, float]] = {}
        for name, file in made.items():
            if name in good:
                with self._steps.step(f"{SPEED} {name}"):
                    self._measure_gain(name, file, rounds, report["versions"][name], gains)
            else:
                self._steps.drop(f"{SPEED} {name}")
        # Of those, what gains most for many at once: one alone gets tokens faster than anybody reads.
        worthy = {
            name: geometric_mean(value for rows, value in gain.items() if rows > 1 or len(gain) == 1)
            for name, gain in gains.items()
            if gain[1] >= LEAST_ALONE and geometric_mean(gain.values()) >= LEAST_GAIN
        }
        if not worthy:
            return self._as_given(report, "no version within the bound is faster")
        best = max(worthy, key=lambda name: worthy[name])
        return Outcome(self._of(made[best]), best, report | {"reason": "the fastest version within the bound"})

    def _as_given(self, report: Report, reason: str) -> Outcome:
        return Outcome(self._way, GIVEN, report | {"reason": reason})

    def _of(self, version: Path) -> Way:
        """Versions are larger than what they are made from: reading them takes the time, and huge pages help."""
        pages = {} if "huge_pages" in self._choices.options else {"huge_pages": may_have_huge_pages(version)}
        return dataclasses.replace(self._way, model=version, options=self._way.options | pages)

    def _make_versions(self, report: Report, facts: dict[str, Any]) -> dict[str, Path]:
        made: dict[str, Path] = {}
        for wanted in FORMATS:
            step = f"{MAKE} {wanted.name}"
            needed = int(facts["weights"] * wanted.bytes_per_weight)
            if fault := self._no_room(needed, facts["peak_bytes"]):
                self._steps.drop(step, f"{SPEED} {wanted.name}")
                report[wanted.name] = {"fault": fault}
                continue
            with self._steps.step(step):
                file = self._record.with_name(f"{self._record.stem}-{wanted.name}.gguf")
                try:
                    self._make(file, wanted)
                except EngineError as error:
                    self._steps.drop(f"{SPEED} {wanted.name}")
                    report[wanted.name] = {"fault": str(error)}
                    continue
            report[wanted.name] = {"bytes": file.stat().st_size}
            made[wanted.name] = file
        return made

    def _make(self, file: Path, wanted: WeightFormat) -> None:
        if not file.is_file():
            task = {"model": str(self._way.model), "file": str(file), "format": wanted.name}
            self._do("weights", task, CONVERSION_SECONDS)

    def _no_room(self, needed: int, peak_bytes: int) -> str | None:
        size = f"its {needed >> 20} MiB"
        disk = os.statvfs(self._record.parent)
        # It is to serve beside what else the machine does; the given model is in memory meanwhile.
        if needed > (detect_hardware().spendable_bytes - self._way.model.stat().st_size) / 2:
            return f"no room for {size} in memory"
        if not self._room.fits(needed, peak_bytes):
            return f"no room for {size} in what a measurement may take of the memory"
        if needed > disk.f_bavail * disk.f_frsize * 0.8:
            return f"no room for {size} on disk"
        return None

    def _good_ones(self, made: dict[str, Path], report: Report) -> set[str]:
        """Names of the versions within the bound of quality."""
        if not made:
            self._steps.drop(QUALITY_STEP)
            return set()
        with self._steps.step(QUALITY_STEP):
            versions = {name: str(file) for name, file in made.items()}
            task = {"given": str(self._way.model), "versions": versions, "options": self._choices.options}
            try:
                answer = self._do("quality", task, COMPARISON_SECONDS)
            except EngineError as error:
                for name in made:
                    report[name]["fault"] = str(error)
                return set()
        qualities = {name: Quality(**found) for name, found in answer["qualities"].items()}
        for name, quality in qualities.items():
            report[name] |= _quality_figures(quality)
        return {name for name, quality in qualities.items() if quality.is_within_bound}

    def _measure_gain(
        self, name: str, version: Path, rounds: Rounds, report: Report, gains: dict[str, dict[int, float]]
    ) -> None:
        try:
            gains[name] = _gain(self._way, self._of(version), rounds)
            report["gain"] = {str(rows): round(value, 2) for rows, value in gains[name].items()}
        except EngineError as error:
            report["fault"] = str(error)

    def _do(self, module: str, task: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
        module = f"deployments.model.engine.{module}"
        threads = {"threads": self._way.options["n_threads"]}
        # How long it takes says nothing: its threads do not spin while others use the cores.
        environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
        with closing(TaskProcess(module, self._clock, self._choices.process, environment)) as process:
            return process.ask(task | threads, limit_seconds)


def _gain(given: Way, version: Way, rounds: Rounds) -> dict[int, float]:
    """How many times as fast the version is as the given model at each number of rows: the mean without and with a
    competitor, of the medians of all rounds. Raises EngineError."""
    found: dict[bool, list[tuple[Speed, Speed]]] = {False: [], True: []}
    for number in range(WEIGHT_ROUNDS):
        for busy, pairs in found.items():
            pairs.append(rounds.pair(given, version, busy, swapped=number % 2 == 1))
    return {
        rows: geometric_mean(
            median(new.tokens_per_second(rows) / base.tokens_per_second(rows) for base, new in pairs)
            for pairs in found.values()
        )
        for rows in found[False][0][0].decode
    }


def _bound() -> dict[str, float]:
    return {"perplexity_change": MOST_PERPLEXITY_CHANGE, "divergence_nats": MOST_DIVERGENCE_NATS}


def _quality_figures(quality: Quality) -> dict[str, Any]:
    figures = {name: round(value, 4) for name, value in dataclasses.asdict(quality).items()}
    return figures | {"within_bound": quality.is_within_bound}
