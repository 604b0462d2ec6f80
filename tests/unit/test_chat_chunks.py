"""Chat completions from what a model made."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.v1.chat.encode import ChatFold, Frame
from deployments.gateway.v1.errors import ApiError
from deployments.generation import Ended, Item, Logprob, Piece, Started

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def frame(**changes: Any) -> Frame:
    return Frame(**({"id": "chatcmpl-1", "created": 1, "model": "m"} | changes))


def ended(reason: Any = "stop", index: int = 0, message: str = "") -> Ended:
    return Ended(index, reason, 7, 3, 5, message)


def deltas(chunks: list[Any], key: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(key) or "" for chunk in chunks if chunk["choices"])


def test_chunks_begin_with_the_role_and_end_with_the_reason() -> None:
    fold = ChatFold(frame())
    chunks = fold.feed([Started(7), Piece(0, "Hel", (1,)), Piece(0, "lo", (2, 3)), ended()])
    first, *_, last = (chunk["choices"][0] for chunk in chunks)
    assert first["delta"] == {"role": "assistant", "content": "Hel"}
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")
    assert deltas(chunks, "content") == "Hello"
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_after_the_last_end() -> None:
    fold = ChatFold(frame(include_usage=True, n=2))
    chunks = fold.feed([Piece(0, "a", (1,)), ended(), Piece(1, "b", (1,)), ended(index=1)])
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 7 + 6
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 5


def test_usage_tells_what_part_of_the_tokens_is_reasoning() -> None:
    fold = ChatFold(frame(include_usage=True, n=2))
    thought, plain = Piece(0, "<think>Is it day?</think>Yes.", (1,)), Piece(1, "Yes.", (1,))
    chunks = fold.feed([thought, Ended(0, "stop", 7, 30, 5), plain, Ended(1, "stop", 7, 2, 5)])
    told = chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert told == round(30 * len("Is it day?") / len(thought.text))
    assert fold.whole()["usage"] == chunks[-1]["usage"]


def test_a_call_is_streamed_by_its_arguments() -> None:
    fold = ChatFold(frame(tool_names=("weather",)))
    chunks = fold.feed([Piece(0, CALL[:30], (1,)), Piece(0, CALL[30:], (2,)), ended()])
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert calls[0]["function"] == {"name": "weather", "arguments": ""}
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Oslo"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    message = fold.whole()["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}


def test_no_log_probability_is_lost_where_text_is_held_back() -> None:
    fold = ChatFold(frame(logprobs=True, tool_names=("weather",)))
    held = Logprob("<", b"<", -0.5, (("<", b"<", -0.5),))
    chunks = fold.feed([Piece(0, "<", (1,), (held,)), Piece(0, "tool", (2,), (held,)), ended()])
    shown = [item for chunk in chunks if (lp := chunk["choices"][0]["logprobs"]) for item in lp["content"]]
    assert len(shown) == 2
    assert shown[0] == {
        "token": "<",
        "bytes": [60],
        "logprob": -0.5,
        "top_logprobs": [{"token": "<", "bytes": [60], "logprob": -0.5}],
    }
    assert deltas(chunks, "content") == "<tool"


@pytest.mark.parametrize(("reason", "status"), [("error", 500), ("timeout", 504), ("cancelled", 499)])
def test_what_did_not_end_well_is_an_error(reason: str, status: int) -> None:
    fold = ChatFold(frame())
    chunks = fold.feed([Piece(0, "Hel", (1,)), ended(reason, message="It broke.")])
    assert "error" in chunks[-1]
    with pytest.raises(ApiError) as caught:
        fold.whole()
    assert caught.value.status == status


@given(st.lists(st.integers(0, len(CALL) + 8), max_size=6))
def test_chunks_do_not_depend_on_how_items_are_batched(cuts: list[int]) -> None:
    text = "Let me see. " + CALL
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces: list[Item] = [Piece(0, text[a:b], (1,)) for a, b in itertools.pairwise(places)]
    items = [Started(7), *pieces, ended()]
    one, each = ChatFold(frame(tool_names=("weather",))), ChatFold(frame(tool_names=("weather",)))
    assert one.feed(items) == [chunk for item in items for chunk in each.feed([item])]
    assert one.whole() == each.whole()
