"""Prompts of unequal length in few parts: what is raised, and that it is the cheapest way."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from deployments.model.engine.even_parts import evened


def cost(lengths: list[int], read_rows: float) -> float:
    return sum(lengths) + read_rows * len(set(lengths))


@given(lengths=st.lists(st.integers(1, 30), max_size=5), read_rows=st.floats(0, 40))
def test_no_other_lengths_cost_less(lengths: list[int], read_rows: float) -> None:
    made = evened(lengths, read_rows)
    assert all(raised >= length for raised, length in zip(made, lengths, strict=True))
    ways = product(*([other for other in lengths if other >= length] for length in lengths))
    assert cost(made, read_rows) <= min(cost(list(way), read_rows) for way in ways) + 1e-6


def test_prompts_of_about_the_same_length_are_made_equal_and_a_long_one_stays_apart() -> None:
    assert evened([60, 300, 62, 61], 10.0) == [62, 300, 62, 62]


def test_nothing_is_raised_where_reading_the_weights_costs_nothing() -> None:
    assert evened([60, 300, 62, 61], 0.0) == [60, 300, 62, 61]
