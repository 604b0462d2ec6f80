"""The ring that all readers of a channel share: no reader misses or doubles an event, however slow it is."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.problems import ProblemError
from deployments.streamer.channel import Channel
from deployments.streamer.wire import Cursor, Frame, frame


def frames(first: int, last: int) -> list[Frame]:
    return [frame(Cursor(1, offset), "message.delta", "{}") for offset in range(first, last + 1)]


@given(
    start=st.integers(0, 50),
    capacity=st.integers(1, 8),
    batches=st.lists(st.integers(0, 6), max_size=20),
    pace=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_reader_at_any_pace_sees_every_offset_once(
    start: int, capacity: int, batches: list[int], pace: list[bool]
) -> None:
    channel = Channel(uuid4(), capacity)
    channel.start(Cursor(1, start))
    log_end = seen = start
    for size, reads in zip(batches, pace, strict=False):
        channel.append(frames(log_end + 1, log_end + size))
        log_end += size
        if reads:
            found = channel.after(seen)
            if found is None:  # fell out of the ring: reads the log itself
                found = frames(seen + 1, log_end)
            assert [item.offset for item in found] == list(range(seen + 1, log_end + 1))
            seen = log_end


def test_event_read_twice_is_kept_once() -> None:
    channel = Channel(uuid4(), 10)
    channel.start(Cursor(1, 0))
    channel.append(frames(1, 3))
    channel.append(frames(2, 5))
    assert [item.offset for item in channel.after(0) or []] == [1, 2, 3, 4, 5]


def test_gap_is_never_bridged_in_silence() -> None:
    channel = Channel(uuid4(), 10)
    channel.start(Cursor(1, 0))
    channel.append(frames(1, 2))
    channel.append(frames(5, 6))
    assert channel.after(2) is None
    assert [item.offset for item in channel.after(4) or []] == [5, 6]


@pytest.mark.parametrize("text", ["0", "17", "2:17", " 5 "])
def test_cursor_survives_the_wire(text: str) -> None:
    assert str(Cursor.parse(text)) == text.strip()


@pytest.mark.parametrize("text", ["", "x", "-1", "1:", ":1", "1:2:3", "1.5", "٣", "9" * 30, "1e3", "a:1"])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Cursor.parse(text)
    assert caught.value.status == 400
