"""Measures how a model runs best on this machine.

    python -m deployments.model.engine.autotune MODEL RESULT auto|as_is

First the weights, then one setting after another, each against what was found before. Two ways are measured in turns,
moments apart, and compared round by round: a busy machine may be a fifth slower for seconds.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from deployments.model.engine.bindings import own_products
from deployments.model.engine.errors import EngineError
from deployments.model.engine.hardware import detect_hardware, usable_cores
from deployments.model.engine.huge_pages import has_huge_pages
from deployments.model.engine.probe import ROWS, Probe, Speed, competitor
from deployments.model.engine.quality import MOST_DIVERGENCE_NATS, MOST_PERPLEXITY_CHANGE, Quality, compare
from deployments.model.engine.tuning import GIVEN, Tuning, save
from deployments.model.engine.weights import FORMATS, requantise, weight_count

# A setting other than the default must be faster by so much, in most of so many rounds.
NOISE = 1.05
ROUNDS = 7
# Rounds for weights, without and with a competitor for the cores each: a service has both hours.
WEIGHT_ROUNDS = 4
# Other weights must be worth the disk and the memory they take, and one person alone may not lose more than this.
LEAST_GAIN, LEAST_ALONE = 1.15, 0.9
# A model that reads the text of quality.py slower than this is too large to be measured, or to gain.
SLOWEST_PREFILL_SECONDS = 0.05
# Weights in huge pages are each replica's own, and a machine may have several: not for models above this share.
MOST_OF_MEMORY = 0.25
# What was not begun by then is not tried: a large model takes minutes for each.
LONGEST_SECONDS = 600.0
# Tokens in one call; the default is 512.
BATCHES = (256, 1024)


@dataclasses.dataclass(frozen=True)
class _Setting:
    """Values to try. `competitors`: without and with somebody else on the cores. `long`: with a long prompt."""

    name: str
    values: list[Any]
    competitors: tuple[bool, ...] = (False,)
    long: bool = False


class Autotune:
    """One search."""

    def __init__(self, model: Path, result: Path) -> None:
        self._model = model
        self._result = result
        self._options: dict[str, Any] = {"n_threads": usable_cores()}
        self._file = model
        self._wait_policy = "default"

    def run(self, may_requantise: bool) -> Tuning:
        """Measures everything. Raises EngineError when the model does not even run as it is, or too slowly."""
        began = time.monotonic()
        try:
            with closing(Probe(self._model, self._options)) as probe:
                given = probe.measure()
        except EngineError as error:
            raise EngineError(f"a first measurement failed: {error}") from error
        chosen, weights = GIVEN, {"policy": "as_is"}
        if may_requantise:
            chosen, weights = self._choose_weights(given)
        settings: list[dict[str, Any]] = []
        for setting in self._settings():
            settings += (
                self._try(setting, value) for value in setting.values if time.monotonic() - began < LONGEST_SECONDS
            )
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
            measured={
                "own_products": own_products.types,
                "weights": weights,
                "settings": settings,
                "seconds": round(time.monotonic() - began, 1),
            },
        )

    def _settings(self) -> list[_Setting]:
        cores = usable_cores()
        threads = sorted({max(1, cores // 2), max(1, cores - 1)} - {cores})
        return [
            _Setting("huge_pages", [not self._options.get("huge_pages")] if _may_have_huge_pages(self._file) else []),
            _Setting("wait_policy", ["passive"], (False, True)),
            _Setting("n_threads", threads, (False, True)),
            _Setting("n_ubatch", [256, 128]),
            _Setting("flash_attention", [False]),
            _Setting("kv_unified", [True]),
            _Setting("n_batch", list(BATCHES), long=True),
        ]

    def _try(self, setting: _Setting, value: Any) -> dict[str, Any]:
        """Keeps a setting when it is faster in most rounds; ends as soon as that is known."""
        settings = {"wait_policy": self._wait_policy, **self._options}
        changed = settings | {setting.name: value}
        ratios: list[float] = []
        faster = 0
        report = {"setting": setting.name, "value": value}
        try:
            with (
                closing(self._probe(settings, setting.long)) as base,
                closing(self._probe(changed, setting.long)) as new,
            ):
                while max(faster, len(ratios) - faster) <= ROUNDS // 2:
                    ratios.append(_ratio(base, new, setting.competitors, swapped=len(ratios) % 2 == 1))
                    faster += ratios[-1] > NOISE
        except EngineError as error:
            return report | {"fault": str(error)}
        kept = faster > ROUNDS // 2
        if kept:
            self._wait_policy = changed.pop("wait_policy")
            self._options = changed
        return report | {"speed": round(median(ratios), 3), "kept": kept}

    def _probe(self, settings: dict[str, Any], long: bool) -> Probe:
        options = dict(settings)
        wait_policy = options.pop("wait_policy")
        return Probe(self._file, options, wait_policy, long)

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
        gains = self._gains(good)
        for name, gain in gains.items():
            report["versions"][name]["gain"] = {str(rows): round(value, 2) for rows, value in gain.items()}
        # Of those, what gains most for many at once: one alone gets tokens faster than anybody reads.
        worthy = {
            name: geometric_mean(gain[rows] for rows in ROWS if rows > 1)
            for name, gain in gains.items()
            if gain[1] >= LEAST_ALONE and geometric_mean(gain.values()) >= LEAST_GAIN
        }
        best = max(worthy, key=lambda name: worthy[name], default=GIVEN)
        for name, file in made.items():
            if name != best:
                file.unlink()
        if best != GIVEN:
            self._file = made[best]
            self._options |= _pages(self._file)
        reason = "the fastest version within the bound" if worthy else "no version within the bound is faster"
        return best, report | {"reason": reason}

    def _gains(self, versions: dict[str, Path]) -> dict[str, dict[int, float]]:
        """How many times as fast each version is as the given model at each number of rows; those that run here."""
        with ExitStack() as stack:
            probes: dict[str, Probe] = {}
            for name, file in {GIVEN: self._model, **versions}.items():
                pages = {} if name == GIVEN else _pages(file)
                probe = stack.enter_context(closing(Probe(file, self._options | pages)))
                try:
                    probe.measure()
                except EngineError:
                    if name == GIVEN:
                        raise
                    continue
                probes[name] = probe
            rounds: dict[bool, list[dict[str, Speed]]] = {False: [], True: []}
            for number in range(2 * WEIGHT_ROUNDS):
                busy = number % 2 == 1
                with competitor(busy):
                    rounds[busy].append({name: probe.measure() for name, probe in probes.items()})
        return {
            name: {
                rows: geometric_mean(
                    median(one[name].tokens_per_second(rows) / one[GIVEN].tokens_per_second(rows) for one in found)
                    for found in rounds.values()
                )
                for rows in ROWS
            }
            for name in versions.keys() & probes
        }

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


def _pages(version: Path) -> dict[str, Any]:
    """Versions are larger than what they are made from: reading them is what takes the time, and huge pages help."""
    return {"huge_pages": _may_have_huge_pages(version)}


def _may_have_huge_pages(file: Path) -> bool:
    return has_huge_pages() and file.stat().st_size <= detect_hardware().spendable_bytes * MOST_OF_MEMORY


def _ratio(base: Probe, new: Probe, competitors: tuple[bool, ...], swapped: bool) -> float:
    """How many times as fast `new` is as `base` now."""
    found: list[float] = []
    for busy in competitors:
        with competitor(busy):
            speeds = {probe: probe.measure().overall for probe in ((new, base) if swapped else (base, new))}
        found.append(speeds[new] / speeds[base])
    return geometric_mean(found)


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
