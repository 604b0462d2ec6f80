"""The strategy drop_tokens: fewer events, the same text, and every id still stands for all before it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deployments.streamer.merge import merge_deltas
from deployments.streamer.wire import Cursor, Frame, frame

Told = tuple[str, str]  # (message, text), or (type, "") of another event
MESSAGES = ("a", "b")


def log(told: list[Told], epoch: int = 1) -> list[Frame]:
    """A log that tells this, from offset 1 on."""
    numbers: dict[str, int] = dict.fromkeys(MESSAGES, 0)
    found = []
    for offset, (who, text) in enumerate(told, 1):
        kind, payload = who, {}
        if who in MESSAGES:
            kind = "message.delta"
            delta = {"role": "assistant", "content": text} if numbers[who] == 0 else {"content": text}
            payload = {"id": f"{who}:{numbers[who]}", "message_id": who, "choices": [{"delta": delta}]}
            numbers[who] += 1
        found.append(frame(Cursor(epoch, offset), kind, json.dumps({"type": kind, "payload": payload})))
    return found


def payload(item: Frame) -> dict[str, Any]:
    return json.loads(item.envelope)["payload"]


def delta(item: Frame) -> dict[str, str]:
    return payload(item)["choices"][0]["delta"]


def texts(frames: list[Frame]) -> dict[str, str]:
    found: dict[str, str] = dict.fromkeys(MESSAGES, "")
    for item in frames:
        if item.type == "message.delta":
            found[payload(item)["message_id"]] += delta(item)["content"]
    return found


told = st.lists(
    st.tuples(st.sampled_from(MESSAGES), st.text(max_size=3)) | st.tuples(st.just("typing.update"), st.just("")),
    max_size=30,
)


@given(told)
def test_text_of_every_message_is_the_same(told: list[Told]) -> None:
    frames = log(told)
    assert texts(merge_deltas(1, frames)) == texts(frames)


@given(told)
def test_other_events_stay_as_they_are(told: list[Told]) -> None:
    frames = log(told)
    others = [item for item in frames if item.type != "message.delta"]
    assert [item for item in merge_deltas(1, frames) if item.type != "message.delta"] == others


@given(told, st.integers(0, 30))
def test_reader_cut_after_any_event_has_seen_all_text_up_to_its_id(told: list[Told], cut: int) -> None:
    frames = log(told)
    seen = merge_deltas(1, frames)[:cut]
    last = seen[-1].offset if seen else 0
    assert texts(seen) == texts([item for item in frames if item.offset <= last])


@given(told)
def test_no_two_neighbours_are_of_one_message(told: list[Told]) -> None:
    merged = merge_deltas(1, log(told))
    kinds = [payload(item)["message_id"] if item.type == "message.delta" else item.offset for item in merged]
    assert all(first != second for first, second in pairwise(kinds))


def test_merged_delta_has_the_last_id_and_the_first_role() -> None:
    [first, rest] = merge_deltas(2, log([("a", "x"), ("a", "y"), ("b", "z")], epoch=2))
    assert first.data.startswith(b"id: 2:2\nevent: message.delta\ndata: {")
    assert first.data.endswith(b"}\n\n")
    assert payload(first)["id"] == "a:1"
    assert delta(first) == {"role": "assistant", "content": "xy"}
    assert rest.data.startswith(b"id: 2:3\n")
    [later] = merge_deltas(1, log([("a", "x"), ("a", "y"), ("a", "z")])[1:])
    assert delta(later) == {"content": "yz"}
