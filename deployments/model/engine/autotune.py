"""Measures how a model runs best on this machine.

    python -m deployments.model.engine.autotune MODEL RESULT auto|as_is [CHOICES]

First the weights, then one setting after another, each against what was found before. CHOICES is JSON of what was
verified to work here and is not tried: {"own_kernels": bool, "cpu_variant": str or null, "options": EngineOptions'}.

The process and those that it starts may be stopped (SIGSTOP) and continued (SIGCONT) together at any moment: what was
measured meanwhile is measured again, and the time does not count. Its output is progress, a line of JSON for each step.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from deployments.model.engine.awake_clock import AwakeClock
from deployments.model.engine.choices import Choices
from deployments.model.engine.errors import EngineError
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.measuring_lock import measuring_alone
from deployments.model.engine.model_file import check_magic
from deployments.model.engine.parent_death import die_with_parent
from deployments.model.engine.prober import Prober, Way
from deployments.model.engine.progress import Progress, Steps
from deployments.model.engine.room import Room
from deployments.model.engine.rounds import Rounds
from deployments.model.engine.setting_search import Candidate, attempt, candidates
from deployments.model.engine.tuning import GIVEN, Tuning, holds_measurement, keep_fault, remove_versions, save, written
from deployments.model.engine.version_search import Outcome, VersionSearch

# What was not begun by then is not tried: a large model takes minutes for each. Without stops.
LONGEST_SECONDS = 600.0
FIRST_STEP = "first measurement"
# In measurements of answers: the process begins as well.
FIRST_COST = 1.5


class Autotune:
    """One search. Plans its steps when it is made."""

    def __init__(
        self, model: Path, record: Path, policy: str, choices: Choices, clock: AwakeClock, steps: Steps
    ) -> None:
        self._record = record
        self._tries_versions = policy == "auto"
        self._choices = choices
        self._clock = clock
        self._steps = steps
        self._way = Way(model, {"n_threads": usable_cores()} | choices.options)
        self._steps.plan({FIRST_STEP: FIRST_COST} | (VersionSearch.planned() if self._tries_versions else {}))
        self._plan_settings(self._way)

    def run(self) -> Tuning:
        """Measures everything. Raises EngineError when the model does not even run as it is, or too slowly."""
        began = self._clock.seconds()
        room = Room(self._way.model)
        with closing(Prober(self._clock, self._choices, room.process_bytes)) as prober:
            rounds = Rounds(self._clock, prober)
            outcome = self._choose_weights(prober, rounds, room)
            way, settings = self._choose_settings(outcome.way, rounds, began + LONGEST_SECONDS)
        return _tuning(
            outcome.format,
            way,
            {
                "own_products": prober.facts["own_products"],
                "weights": outcome.report,
                "settings": settings,
                "seconds": round(self._clock.seconds() - began, 1),
                "rounds_repeated": rounds.repeated,
                "others_cores": round(rounds.others.cores, 2),
                "loaded": rounds.others.is_loaded,
            },
        )

    def _choose_weights(self, prober: Prober, rounds: Rounds, room: Room) -> Outcome:
        with self._steps.step(FIRST_STEP):
            try:
                given = rounds.first(self._way)
            except EngineError as error:
                raise EngineError(f"a first measurement failed: {error}") from error
        if not self._tries_versions:
            return Outcome(self._way, GIVEN, {"policy": "as_is"})
        search = VersionSearch(self._way, self._clock, self._steps, self._choices, room, self._record)
        return search.run(given, prober, rounds)

    def _choose_settings(self, way: Way, rounds: Rounds, end: float) -> tuple[Way, list[dict[str, Any]]]:
        self._steps.drop(*(candidate.step for candidate in candidates(self._way, self._choices.options)))
        reports: list[dict[str, Any]] = []
        for candidate in self._plan_settings(way):
            if self._clock.seconds() >= end:
                self._steps.drop(candidate.step)
                continue
            with self._steps.step(candidate.step):
                way, report = attempt(rounds, way, candidate)
            reports.append(report)
        return way, reports

    def _plan_settings(self, way: Way) -> list[Candidate]:
        found = list(candidates(way, self._choices.options))
        self._steps.plan({candidate.step: candidate.cost for candidate in found})
        return found


def _tuning(weights: str, way: Way, measured: dict[str, Any]) -> Tuning:
    return Tuning(
        format=weights,
        weights=None if weights == GIVEN else way.model,
        wait_policy=way.wait_policy,
        n_threads=way.options["n_threads"],
        n_batch=way.options.get("n_batch"),
        n_ubatch=way.options.get("n_ubatch", 512),
        kv_unified=way.options.get("kv_unified", False),
        flash_attention=way.options.get("flash_attention", True),
        huge_pages=way.options.get("huge_pages", False),
        measured=measured,
    )


def _report(progress: Progress) -> None:
    sys.stdout.write(progress.line() + "\n")
    sys.stdout.flush()


def _search(model: Path, record: Path, policy: str, choices: Choices) -> None:
    clock = AwakeClock()
    steps = Steps(clock, _report)
    autotune = Autotune(model, record, policy, choices, clock, steps)
    before = written(record)
    with measuring_alone(record, steps.waits):
        # Somebody else may have measured the same meanwhile.
        if written(record) == before or not holds_measurement(record):
            save(autotune.run(), record)
            remove_versions(record)


def main() -> None:
    """Writes the result's file. When it cannot, keeps the fault where there is no earlier result, and ends with 1 and a
    line of why; at once where the model's file is none."""
    die_with_parent()
    model, record, policy = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    try:
        check_magic(model)
    except EngineError as error:
        sys.exit(str(error))
    try:
        _search(model, record, policy, Choices(**json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}))
    except BrokenPipeError:
        sys.exit("nobody reads the progress")
    except (EngineError, OSError) as error:
        keep_fault(record, str(error))
        sys.exit(str(error))


if __name__ == "__main__":
    main()
