"""Prompts of unequal length in few parts: how many there are, and that fewer are made only where they cost less."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.config import bundled_model_file
from deployments.model.engine.detokenizer import Detokenizer
from deployments.model.engine.even_parts import Limits, Part, even_parts, parts_of
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import GenerationRequest
from deployments.model.engine.sampler import Sampler
from deployments.model.engine.sequence import Sequence, Slot
from deployments.model.engine.vocabulary import Vocabulary

VOCABULARY = Vocabulary(load_model(bundled_model_file(), 0))
WIDE = Limits(reading=10.0, micro_batch=512, cells=1024, room=1000)


def prompts(*lengths: int | None, computed: int = 0) -> list[Sequence]:
    """One in each slot, in their order; None: nobody is in the slot."""
    made: list[Sequence] = []
    for number, length in enumerate(lengths):
        if length is None:
            continue
        request = GenerationRequest(tuple(range(computed + length)))
        loop = asyncio.new_event_loop()
        loop.close()
        one = Sequence(request, Detokenizer(VOCABULARY.pieces, ()), Sampler(request, VOCABULARY), 5000, loop)
        one.slot = Slot(number, list(range(computed)), one)
        made.append(one)
    return made


def evened(made: list[Sequence], limits: Limits = WIDE, decoding: dict[int, int] | None = None) -> list[int]:
    """How many rows each gets where all that is missing was planned."""
    parts = even_parts({one: one.missing_tokens for one in made}, decoding or {}, limits)
    assert all(parts[one].tokens == one.missing_tokens for one in made)
    return [parts[one].tokens + parts[one].padding for one in made]


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([60, 60, 60, 60], 1),
        ([60, 61, 62, 63], 4),
        # Those that are left are no neighbours.
        ([58, 50, 58, 50, 58, 50, 58, 50], 5),
        # More than a micro-batch.
        ([65] * 8, 2),
        ([600], 2),
        ([1, 1, 60, 1], 2),
    ],
)
def test_llama_splits_a_step_by_the_shortest_neighbour_and_the_micro_batch(rows: list[int], parts: int) -> None:
    assert parts_of(dict(enumerate(rows)), 512) == parts


def test_prompts_of_about_the_same_length_are_made_equal_and_a_long_one_stays_apart() -> None:
    assert evened(prompts(60, 300, 62, 61)) == [62, 300, 62, 62]


def test_many_are_raised_where_their_neighbours_part_them() -> None:
    assert evened(prompts(58, 50, 58, 50, 58, 50, 58, 50)) == [58] * 8


def test_nothing_is_raised_that_saves_no_part() -> None:
    assert evened(prompts(64, 64, 64, 64, 64, 64, 64, 65)) == [64] * 7 + [65]
    assert evened(prompts(60, None, 62)) == [60, 62]


def test_prompts_beside_one_that_decodes_are_made_equal() -> None:
    assert evened(prompts(60, 62), decoding={2: 1}) == [62, 62]


def test_a_slot_gets_no_more_than_its_cells_and_a_step_no_more_than_its_room() -> None:
    made = prompts(60, 62, computed=100)
    assert evened(made, Limits(10.0, 512, 162, 1000)) == [62, 62]
    assert evened(made, Limits(10.0, 512, 161, 1000)) == [60, 62]
    assert evened(made, Limits(10.0, 512, 1024, 1)) == [60, 62]


def test_a_prompt_that_was_cut_short_gets_tokens_before_padding() -> None:
    whole, cut = prompts(62, 61)
    assert even_parts({whole: 62, cut: 58}, {}, WIDE) == {whole: Part(62), cut: Part(61, 1)}


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=9),
    reading=st.floats(0, 40),
    micro_batch=st.integers(16, 600),
)
def test_it_never_costs_more_than_what_was_planned(lengths: list[int], reading: float, micro_batch: int) -> None:
    made = evened(prompts(*lengths), Limits(reading, micro_batch, 1024, 1000))

    def cost(rows: list[int]) -> float:
        return sum(rows) + reading * parts_of(dict(enumerate(rows)), micro_batch)

    assert all(rows >= length for rows, length in zip(made, lengths, strict=True))
    assert cost(made) <= cost(lengths) + 1e-6
