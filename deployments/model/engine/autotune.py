"""Measures how a model runs best on this machine.

    python -m deployments.model.engine.autotune MODEL RESULT auto|as_is

First the weights, then one setting after another, each against what was found before. What there is stays unless
another is better by more than the machine's noise, twice.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from deployments.model.engine.errors import EngineError
from deployments.model.engine.hardware import detect_hardware, usable_cores
from deployments.model.engine.huge_pages import has_huge_pages
from deployments.model.engine.probe import PROBE_SECONDS, ROWS, Speed, probe, probe_long_prompt
from deployments.model.engine.quality import MOST_DIVERGENCE_NATS, MOST_PERPLEXITY_CHANGE, Quality, compare
from deployments.model.engine.tuning import GIVEN, Tuning, save
from deployments.model.engine.weights import FORMATS, requantise, weight_count

# A setting other than the default must be faster by so much.
NOISE = 1.05
# Other weights must be worth the disk and the memory they take, and one person alone may not lose more than this:
# drafts win it back (speculation.py).
LEAST_GAIN, LEAST_ALONE = 1.15, 0.85
# A model that reads the text of quality.py slower than this is too large to be measured, or to gain.
SLOWEST_PREFILL_SECONDS = 0.05
TURNS = 2
# Weights in huge pages are each replica's own, and a machine may have several: not for models above this share.
MOST_OF_MEMORY = 0.25
# Tokens in one call; the default is 512.
BATCHES = (256, 1024)
PROBE_SIZES: dict[str, Any] = {"max_slots": max(ROWS), "max_sequence_tokens": 256}


class Autotune:
    """One search."""

    def __init__(self, model: Path, result: Path) -> None:
        self._model = model
        self._result = result
        self._options: dict[str, Any] = PROBE_SIZES | {"n_threads": usable_cores()}
        self._file = model
        self._wait_policy = "default"

    def run(self, may_requantise: bool) -> Tuning:
        """Measures everything. Raises EngineError when the model does not even run as it is, or too slowly."""
        began = time.monotonic()
        given = probe(self._model, self._options, "default")
        if given is None:
            raise EngineError(f"a first measurement failed or took longer than {PROBE_SECONDS:.0f} s")
        chosen, weights = GIVEN, {"policy": "as_is"}
        if may_requantise:
            chosen, weights = self._choose_weights(given)
        settings: list[dict[str, Any]] = []
        for name, values, competitors in self._settings():
            settings += [self._try(name, value, competitors) for value in values]
        settings += [self._try_batch(tokens) for tokens in BATCHES]
        return Tuning(
            format=chosen,
            weights=None if self._file == self._model else self._file,
            wait_policy=self._wait_policy,
            n_threads=self._options["n_threads"],
            n_batch=self._options.get("n_batch"),
            n_ubatch=self._options.get("n_ubatch", 512),
            kv_unified=self._options.get("kv_unified", False),
            flash_attention=self._options.get("flash_attention", True),
            huge_pages=self._options.get("huge_pages", False),
            measured={"weights": weights, "settings": settings, "seconds": round(time.monotonic() - began, 1)},
        )

    def _settings(self) -> list[tuple[str, list[Any], tuple[bool, ...]]]:
        """Names, values to try, and whether without or also with a competitor for the cores."""
        cores = usable_cores()
        threads = sorted({max(1, cores // 2), max(1, cores - 1)} - {cores})
        return [
            ("huge_pages", [True] if self._has_room_for_huge_pages() else [], (False,)),
            ("wait_policy", ["passive"], (False, True)),
            ("n_threads", threads, (False, True)),
            ("n_ubatch", [256, 128], (False,)),
            ("flash_attention", [False], (False,)),
            ("kv_unified", [True], (False,)),
        ]

    def _has_room_for_huge_pages(self) -> bool:
        size = self._file.stat().st_size
        return has_huge_pages() and size <= detect_hardware().spendable_bytes * MOST_OF_MEMORY

    def _try(self, name: str, value: Any, competitors: tuple[bool, ...]) -> dict[str, Any]:
        """Keeps a setting when it is better."""
        settings = {"wait_policy": self._wait_policy, **self._options}

        def speed(tried: dict[str, Any]) -> float | None:
            found = [self._speed(tried, competitor) for competitor in competitors]
            return geometric_mean(map(_overall, filter(None, found))) if all(found) else None

        report = _compare(name, value, settings, speed)
        if report.get("kept"):
            settings |= {name: value}
            self._wait_policy = settings.pop("wait_policy")
            self._options = settings
        return report

    def _try_batch(self, tokens: int) -> dict[str, Any]:
        """How many tokens go into one call, by a prompt that needs several."""

        def speed(tried: dict[str, Any]) -> float | None:
            seconds = probe_long_prompt(self._file, tried, self._wait_policy)
            return seconds and 1 / seconds

        report = _compare("n_batch", tokens, self._options, speed)
        if report.get("kept"):
            self._options = self._options | {"n_batch": tokens}
        return report

    def _speed(self, settings: dict[str, Any], competitor: bool) -> Speed | None:
        options = dict(settings)
        return probe(self._file, options, options.pop("wait_policy"), competitor)

    def _choose_weights(self, given: Speed) -> tuple[str, dict[str, Any]]:
        report: dict[str, Any] = {"policy": "auto", "bound": _bound(), "versions": {}}
        if given.prefill > SLOWEST_PREFILL_SECONDS:
            return GIVEN, report | {"reason": "the model is too large for this machine to compare versions of it"}
        made = self._make_versions(report["versions"])
        if not made:
            return GIVEN, report | {"reason": "there is no room for another version"}
        qualities = compare(self._model, made, usable_cores())
        for name, quality in qualities.items():
            report["versions"][name] |= _quality_figures(quality)
        good = {name: file for name, file in made.items() if qualities[name].is_within_bound}
        # Each without and with a competitor for the cores: a service has both hours.
        speeds: dict[str, tuple[list[Speed], list[Speed]]] = {name: ([], []) for name in (GIVEN, *good)}
        for _ in range(TURNS):
            for competitor in (False, True):
                for name, found in speeds.items():
                    if speed := probe(good.get(name, self._model), self._options, "default", competitor):
                        found[competitor].append(speed)
        gains = {name: _gains(speeds[name], speeds[GIVEN]) for name in good if all((*speeds[name], *speeds[GIVEN]))}
        for name, gain in gains.items():
            report["versions"][name]["gain"] = {str(rows): round(value, 2) for rows, value in gain.items()}
        worthy = {
            name: overall
            for name, gain in gains.items()
            if gain[1] >= LEAST_ALONE and (overall := geometric_mean(gain.values())) >= LEAST_GAIN
        }
        best = max(worthy, key=lambda name: worthy[name], default=GIVEN)
        for name, file in made.items():
            if name != best:
                file.unlink()
        self._file = made.get(best, self._model)
        reason = "the fastest version within the bound" if worthy else "no version within the bound is faster"
        return best, report | {"reason": reason}

    def _make_versions(self, report: dict[str, Any]) -> dict[str, Path]:
        made: dict[str, Path] = {}
        count = weight_count(self._model)
        # The given model, the version and their contexts are in memory at once.
        room = detect_hardware().spendable_bytes - self._model.stat().st_size
        for wanted in FORMATS:
            needed = int(count * wanted.bytes_per_weight)
            free = os.statvfs(self._result.parent)
            if needed > room / 2 or needed > free.f_bavail * free.f_frsize * 0.8:
                report[wanted.name] = {"fault": f"no room for its {needed >> 20} MiB"}
                continue
            file = self._result.with_name(f"{self._result.stem}-{wanted.name}.gguf")
            try:
                requantise(self._model, file, wanted, usable_cores())
            except EngineError as error:
                report[wanted.name] = {"fault": str(error)}
                continue
            report[wanted.name] = {"bytes": file.stat().st_size}
            made[wanted.name] = file
        return made


def _compare(
    name: str, value: Any, settings: dict[str, Any], speed: Callable[[dict[str, Any]], float | None]
) -> dict[str, Any]:
    """How a setting compares with what there is. What seems better must be so twice, since one moment of a busy machine
    makes anything seem better; measured in the other order, since such a moment may last."""
    ratios: list[float] = []
    changed = settings | {name: value}
    for order in ((settings, changed), (changed, settings)):
        found = {tried is changed: speed(tried) for tried in order}
        base, other = found[False], found[True]
        if not base or not other:
            return {"setting": name, "value": value, "fault": "it does not run that way here"}
        ratios.append(other / base)
        if ratios[-1] <= NOISE:
            break
    return {"setting": name, "value": value, "speed": round(min(ratios), 3), "kept": min(ratios) > NOISE}


def _overall(speed: Speed) -> float:
    return geometric_mean(speed.tokens_per_second(rows) for rows in ROWS)


def _gains(found: Iterable[list[Speed]], base: Iterable[list[Speed]]) -> dict[int, float]:
    """Ratios at each number of rows, the mean of those without and with a competitor."""

    def middle(speeds: list[Speed], rows: int) -> float:
        return median(speed.tokens_per_second(rows) for speed in speeds)

    pairs = list(zip(found, base, strict=True))
    return {rows: geometric_mean(middle(one, rows) / middle(other, rows) for one, other in pairs) for rows in ROWS}


def _bound() -> dict[str, float]:
    return {"perplexity_change": MOST_PERPLEXITY_CHANGE, "divergence_nats": MOST_DIVERGENCE_NATS}


def _quality_figures(quality: Quality) -> dict[str, Any]:
    figures = {name: round(value, 4) for name, value in dataclasses.asdict(quality).items()}
    return figures | {"within_bound": quality.is_within_bound}


def main() -> None:
    """Writes the result's file; ends with 1 and a line of why when it cannot."""
    model, result, policy = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    try:
        save(Autotune(model, result).run(policy == "auto"), result)
    except (EngineError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
