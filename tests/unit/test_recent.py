"""What was used last is kept, and no more of it than the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.model.engine.recent import Recent


def size(key: str, value: int) -> int:
    return value


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    recent = Recent(30, size)
    for key in "abc":
        recent.put(key, 10)
    assert recent.get("a") == 10
    recent.put("d", 10)
    assert [recent.get(key) for key in "abcd"] == [10, None, 10, 10]


@given(puts=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 40))))
def test_never_more_than_the_limit_is_kept_and_the_newest_is_there_if_it_fits(puts: list[tuple[str, int]]) -> None:
    recent = Recent(30, size)
    for key, value in puts:
        recent.put(key, value)
        assert recent.get(key) == (value if value <= 30 else None)
        assert sum(recent.get(other) or 0 for other in "abcdefgh") <= 30
