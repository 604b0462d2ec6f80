"""Which integers the pattern of a range takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.model.engine.integer_range import integers

SOME = st.integers(-(10**6), 10**6) | st.integers(-120, 120)


@given(SOME | st.none(), SOME | st.none(), SOME)
def test_pattern_takes_exactly_the_integers_of_its_range(least: int | None, most: int | None, number: int) -> None:
    if least is not None and most is not None and least > most:
        with pytest.raises(ValueError, match="no integer"):
            integers(least, most)
        return
    pattern = re.compile(integers(least, most), re.VERBOSE)
    for candidate in {number, *(bound + step for bound in (least, most) if bound is not None for step in (-1, 0, 1))}:
        is_within = (least is None or candidate >= least) and (most is None or candidate <= most)
        assert bool(pattern.fullmatch(str(candidate))) == is_within
        assert not pattern.fullmatch(f"0{candidate}")
