"""Prompts of unequal length in one step, in few parts.

With a stream of cells for each slot, llama.cpp computes as many tokens of each sequence as the shortest still has, and
so on with those that are left and whose slots are neighbours (llama_batch_allocr::split_equal): each part reads all
weights. A few rows more, which mean nothing and are forgotten, may cost less than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.model.engine.sequence import Sequence


@dataclass(frozen=True)
class Part:
    """A prompt's share of a step: its next `tokens`, and rows without meaning after them."""

    tokens: int
    padding: int = 0


@dataclass(frozen=True)
class Limits:
    """Of a step: `reading` is how many rows take as long as reading all weights once, `micro_batch` how many llama.cpp
    computes at once; a slot has so many `cells`, and there is `room` for so many rows more than are planned."""

    reading: float
    micro_batch: int
    cells: int
    room: int


def even_parts(plan: Mapping[Sequence, int], decoding: Mapping[int, int], limits: Limits) -> dict[Sequence, Part]:
    """What to compute of prompts that have a slot: at least the tokens that `plan` gives each. Where others are longer
    it may be more: tokens as long as the prompt has some, then padding. `decoding` are other slots' rows in the step.
    """
    planned = {sequence.slot.id: tokens for sequence, tokens in plan.items() if sequence.slot}
    most = {sequence.slot.id: limits.cells - len(sequence.slot.tokens) for sequence in plan if sequence.slot}
    lengths = min(
        (way for way in _ways(planned, most, limits.reading) if _more(way, planned) <= limits.room),
        key=lambda way: _more(way, planned) + limits.reading * parts_of({**way, **decoding}, limits.micro_batch),
    )
    parts: dict[Sequence, Part] = {}
    for sequence in plan:
        assert sequence.slot is not None
        length = lengths[sequence.slot.id]
        tokens = min(length, sequence.missing_tokens)
        parts[sequence] = Part(tokens, length - tokens)
    return parts


def parts_of(rows: Mapping[int, int], micro_batch: int) -> int:
    """In how many parts llama.cpp computes a step with so many rows of each slot."""
    left = {slot: rows[slot] for slot in sorted(rows)}
    parts = 0
    while left:
        run: list[int] = []
        for slot in left:
            if not run or slot == run[-1] + 1:
                run.append(slot)
        taken = min(max(1, micro_batch // len(run)), *(left[slot] for slot in run))
        for slot in run:
            left[slot] -= taken
            if not left[slot]:
                del left[slot]
        parts += 1
    return parts


def _ways(planned: dict[int, int], most: dict[int, int], reading: float) -> list[dict[int, int]]:
    """As planned, and with each length raised to the longest that is at most 1, 2, 4, … rows longer."""
    ways = [planned]
    gap = 1
    # More rows than two readings are not made up for by the parts that one prompt saves.
    while gap <= 2 * reading and len(planned) > 1:
        way: dict[int, int] = {}
        level = None
        for slot, length in sorted(planned.items(), key=lambda item: -item[1]):
            if level is None or level - length > gap:
                level = length
            way[slot] = level if level <= most[slot] else length
        ways.append(way)
        gap *= 2
    return ways


def _more(way: dict[int, int], planned: dict[int, int]) -> int:
    return sum(way.values()) - sum(planned.values())
