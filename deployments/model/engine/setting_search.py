"""Finds settings that run a model faster: one after another, each against what was found before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from deployments.model.engine.errors import EngineError
from deployments.model.engine.hardware import detect_hardware, usable_cores
from deployments.model.engine.huge_pages import has_huge_pages
from deployments.model.engine.prober import Way
from deployments.model.engine.rounds import Rounds

# A setting other than the default must be faster by so much, in most of so many rounds.
NOISE = 1.05
ROUNDS = 7
# Weights in huge pages are each replica's own, and a machine may have several: not for models above this share.
MOST_OF_MEMORY = 0.25
# Tokens in one call, and of those at once; the defaults are 512. They make no difference to shorter prompts than these.
BATCHES, BATCH_PROMPT_TOKENS = (256, 1024), 1024
UBATCHES, UBATCH_PROMPT_TOKENS = (256, 128), 512
# Measurements of each side where the first rounds agree, and what a prompt of 1,024 tokens takes in such.
LEAST_ROUNDS = ROUNDS // 2 + 1
LONG_PROMPT_COST = 2.0


@dataclass(frozen=True)
class Candidate:
    """A value to try. `competitors`: without and with somebody else on the cores. `prompt_tokens`: by a prompt of so
    many instead of by answers."""

    name: str
    value: Any
    competitors: tuple[bool, ...] = (False,)
    prompt_tokens: int | None = None

    @property
    def cost(self) -> float:
        """What it takes, in measurements of answers."""
        return 2 * LEAST_ROUNDS * len(self.competitors) * max(1, LONG_PROMPT_COST * (self.prompt_tokens or 0) / 1024)

    @property
    def step(self) -> str:
        """As progress names it."""
        return f"{self.name} {self.value}"

    def applied(self, way: Way) -> Way:
        """The way with this value."""
        if self.name == "wait_policy":
            return dataclasses.replace(way, wait_policy=self.value)
        return dataclasses.replace(way, options=way.options | {self.name: self.value})


def candidates(way: Way, given: dict[str, Any]) -> Iterator[Candidate]:
    """What is tried on this machine, but for settings that are `given`."""
    cores = usable_cores()
    both = (False, True)
    if may_have_huge_pages(way.model):
        yield from _of("huge_pages", [not way.options.get("huge_pages", False)], given)
    yield Candidate("wait_policy", "passive", both)
    for value in sorted({max(1, cores // 2), max(1, cores - 1)} - {cores}):
        if "n_threads" not in given:
            yield Candidate("n_threads", value, both)
    yield from _of("n_ubatch", UBATCHES, given, UBATCH_PROMPT_TOKENS)
    yield from _of("flash_attention", [False], given)
    yield from _of("kv_unified", [True], given)
    yield from _of("n_batch", BATCHES, given, BATCH_PROMPT_TOKENS)


def _of(
    name: str, values: Iterable[Any], given: dict[str, Any], prompt_tokens: int | None = None
) -> Iterator[Candidate]:
    if name not in given:
        yield from (Candidate(name, value, prompt_tokens=prompt_tokens) for value in values)


def attempt(rounds: Rounds, way: Way, candidate: Candidate) -> tuple[Way, dict[str, Any]]:
    """Keeps a value when it is faster in most rounds; ends as soon as that is known. Returns the way from now on, and
    what is reported."""
    base = dataclasses.replace(way, prompt_tokens=candidate.prompt_tokens)
    new = candidate.applied(base)
    report = {"setting": candidate.name, "value": candidate.value}
    ratios: list[float] = []
    faster = 0
    try:
        while max(faster, len(ratios) - faster) <= ROUNDS // 2:
            ratios.append(rounds.ratio(base, new, candidate.competitors, swapped=len(ratios) % 2 == 1))
            faster += ratios[-1] > NOISE
    except EngineError as error:
        return way, report | {"fault": str(error)}
    kept = faster > ROUNDS // 2
    return candidate.applied(way) if kept else way, report | {"speed": round(median(ratios), 3), "kept": kept}


def may_have_huge_pages(file: Path) -> bool:
    """Whether the machine gives them, and has memory for copies of the weights in them."""
    return has_huge_pages() and file.stat().st_size <= detect_hardware().spendable_bytes * MOST_OF_MEMORY
