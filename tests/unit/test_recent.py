"""What was used last is kept, and no more of it than the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.model.engine.recent import ENTRY_BYTES, Recent


def size(key: str, value: int) -> int:
    return value


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    recent = Recent(30 + 3 * ENTRY_BYTES, size)
    for key in "abc":
        recent.put(key, 10)
    assert recent.get("a") == 10
    recent.put("d", 10)
    assert [recent.get(key) for key in "abcd"] == [10, None, 10, 10]


@given(puts=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 400))))
def test_never_more_than_the_limit_is_kept_and_the_newest_is_there_if_it_fits(puts: list[tuple[str, int]]) -> None:
    limit = 2 * ENTRY_BYTES + 30
    recent = Recent(limit, size)
    for key, value in puts:
        recent.put(key, value)
        assert recent.get(key) == (value if ENTRY_BYTES + value <= limit else None)
        kept = [value for other in "abcdefgh" if (value := recent.get(other))]
        assert sum(kept) + ENTRY_BYTES * len(kept) <= limit
