"""The prefix tree against a list of all that is held."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.model.engine.prefix_tree import PrefixTree, common_length

# Few different tokens, so that many prefixes are shared.
tokens = st.lists(st.integers(0, 2), max_size=12).map(tuple)
changes = st.lists(st.tuples(st.integers(0, 7), st.none() | tokens.filter(len)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(a=tokens, b=tokens)
def test_common_length_counts_equal_leading_tokens(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_length(a, b) == expected


@settings(max_examples=300, deadline=None)
@given(changes=changes, wanted=tokens)
def test_tree_finds_what_a_list_of_all_holders_finds(
    changes: list[tuple[int, tuple[int, ...] | None]], wanted: tuple[int, ...]
) -> None:
    tree: PrefixTree[int] = PrefixTree()
    held: dict[int, tuple[int, ...]] = {}
    for holder, what in changes:
        if what is None:
            tree.remove(holder)
            held.pop(holder, None)
        else:
            tree.put(holder, what)
            held[holder] = what
        tree.check()
    length, below = tree.longest(wanted)
    shared = {holder: common_length(what, wanted) for holder, what in held.items()}
    best = max(shared.values(), default=0)
    assert length == best
    assert sorted(below) == sorted(holder for holder in shared if best and shared[holder] == best)
    assert len(tree) == len(held)
    for holder, what in held.items():
        assert tree.tokens(holder) == what
        others = [other for key, other in held.items() if key != holder]
        assert tree.is_extended(holder) == any(other[: len(what)] == what for other in others)
