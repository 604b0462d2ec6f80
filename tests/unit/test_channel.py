"""The ring that all readers of a channel share: no reader misses or doubles an event, however slow it is."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.problems import ProblemError
from deployments.streamer.channel import RING_BYTES, Channel
from deployments.streamer.wire import WRITE_BYTES, Cursor, Frame, batches, frame


def frames(first: int, last: int, size: int = 2) -> list[Frame]:
    return [frame(Cursor(1, offset), "message.delta", "x" * size) for offset in range(first, last + 1)]


def ring(capacity: int = 10, after: int = 0) -> Channel:
    channel = Channel(uuid4(), capacity)
    channel.start(Cursor(1, after))
    return channel


def offsets(channel: Channel, after: int) -> list[int]:
    return [item.offset for item in channel.frames(after, 1 << 30)]


@given(
    start=st.integers(0, 50),
    capacity=st.integers(1, 8),
    batch_sizes=st.lists(st.integers(0, 6), max_size=20),
    pace=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_reader_at_any_pace_sees_every_offset_once(
    start: int, capacity: int, batch_sizes: list[int], pace: list[bool]
) -> None:
    channel = ring(capacity, start)
    log_end = seen = start
    for size, reads in zip(batch_sizes, pace, strict=False):
        channel.append(frames(log_end + 1, log_end + size))
        log_end += size
        if not reads:
            continue
        if seen < channel.base:  # fell out of the ring: reads the log itself
            seen = log_end
            continue
        assert offsets(channel, seen) == list(range(seen + 1, log_end + 1))
        batch = channel.after(seen)
        assert (batch.last if batch else seen) == log_end
        seen = log_end


def test_readers_at_one_place_share_one_copy() -> None:
    channel = ring()
    channel.append(frames(1, 3))
    assert channel.after(1) is channel.after(1)
    channel.append(frames(4, 4))
    batch = channel.after(1)
    assert batch
    assert (batch.last, batch.counts) == (4, {"message.delta": 3})


def test_event_read_twice_is_kept_once() -> None:
    channel = ring()
    channel.append(frames(1, 3))
    channel.append(frames(2, 5))
    assert offsets(channel, 0) == [1, 2, 3, 4, 5]


def test_gap_is_never_bridged_in_silence() -> None:
    channel = ring()
    channel.append(frames(1, 2))
    channel.append(frames(5, 6))
    assert channel.base == 4
    assert offsets(channel, 4) == [5, 6]


def test_events_that_will_never_come_are_skipped_so_that_readers_notice() -> None:
    channel = ring()
    channel.append(frames(1, 2))
    channel.skip(3)
    assert (channel.base, channel.last) == (0, 2)
    channel.skip(9)
    assert (channel.base, channel.last) == (8, 8)
    assert channel.after(8) is None


def test_ring_of_long_events_is_bounded_in_bytes() -> None:
    channel = ring(capacity=1000)
    channel.append(frames(1, 40, size=RING_BYTES // 8))
    held = channel.frames(channel.base, 1 << 30)
    assert sum(len(item.data) for item in held) <= RING_BYTES
    assert [item.offset for item in held] == list(range(channel.base + 1, 41))
    assert len(held) == 7


@given(st.lists(st.integers(1, 3 * WRITE_BYTES), max_size=30))
def test_one_write_is_bounded_and_all_writes_together_are_everything(sizes: list[int]) -> None:
    log = [frames(offset, offset, size)[0] for offset, size in enumerate(sizes, 1)]
    writes = list(batches(log))
    data = [write.message["body"] for write in writes]
    assert b"".join(data) == b"".join(item.data for item in log)
    assert all(len(each) <= WRITE_BYTES or write.counts.total() == 1 for each, write in zip(data, writes, strict=True))
    assert [write.last for write in writes] == sorted({write.last for write in writes})


@pytest.mark.parametrize("text", ["0", "17", "2:17", " 5 "])
def test_cursor_survives_the_wire(text: str) -> None:
    assert str(Cursor.parse(text)) == text.strip()


@pytest.mark.parametrize("text", ["", "x", "-1", "1:", ":1", "1:2:3", "1.5", "٣", "9" * 30, "1e3", "a:1"])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Cursor.parse(text)
    assert caught.value.status == 400
