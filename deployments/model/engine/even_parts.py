"""Prompts of unequal length in one step, in few parts.

With a stream of cells for each slot, llama.cpp computes as many tokens of each sequence as the shortest still has, and
so on with those that are left (llama_batch_allocr::split_equal): as many parts as there are lengths, each of which
reads all weights. A few rows more, which mean nothing and are forgotten, cost less than that: 8 prompts of 63 to 75
tokens took 0.60 s with all as long as the longest, and 0.68 s without (SmolLM2-135M, BF16, 2 cores).
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as ListLike
from dataclasses import dataclass

from deployments.model.engine.sequence import Sequence


@dataclass(frozen=True)
class Part:
    """A prompt's share of a step: its next `tokens`, and rows without meaning after them."""

    tokens: int
    padding: int = 0


def even_parts(plan: dict[Sequence, int], read_rows: float, cells: int, room: int) -> dict[Sequence, Part]:
    """What to compute of prompts that have a slot, where `plan` has the tokens that each should get at least. Reading
    all weights once takes as long as `read_rows` rows. A slot has so many `cells`; there is `room` for so many more
    rows in all."""
    parts = {sequence: Part(tokens) for sequence, tokens in plan.items()}
    for run in _neighbours(plan):
        lengths = evened([plan[sequence] for sequence in run], read_rows)
        for sequence, length in zip(run, lengths, strict=True):
            assert sequence.slot is not None
            tokens = min(length, sequence.missing_tokens)
            more = length - plan[sequence]
            if more <= room and len(sequence.slot.tokens) + length <= cells:
                parts[sequence] = Part(tokens, length - tokens)
                room -= more
    return parts


def evened(lengths: ListLike[int], read_rows: float) -> list[int]:
    """The lengths with some of them raised to that of a longer one, so that all rows and a reading of the weights for
    each length that is left take the least time."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    rising = [lengths[place] for place in order]
    # Of the first n: the least cost, and where the last of their groups begins.
    costs, begins = [0.0], [0]
    for end in range(1, len(rising) + 1):
        raised, best = 0, (float("inf"), 0)
        for begin in range(end - 1, -1, -1):
            raised += rising[end - 1] - rising[begin]
            best = min(best, (costs[begin] + raised + read_rows, begin))
        costs.append(best[0])
        begins.append(best[1])
    result = list(lengths)
    end = len(rising)
    while end:
        for place in order[begins[end] : end]:
            result[place] = rising[end - 1]
        end = begins[end]
    return result


def _neighbours(sequences: Iterable[Sequence]) -> list[list[Sequence]]:
    """Those in slots that follow each other: others are not computed together anyway."""
    runs: list[list[Sequence]] = []
    last = None
    for number, sequence in sorted((sequence.slot.id, sequence) for sequence in sequences if sequence.slot):
        if last is None or number != last + 1:
            runs.append([])
        runs[-1].append(sequence)
        last = number
    return runs
