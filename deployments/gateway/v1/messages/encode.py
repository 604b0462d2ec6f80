"""A message of Anthropic's API from items: events of a stream, or the whole. A function of what is given alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from deployments.gateway.v1.chat.encode import failure
from deployments.gateway.v1.errors import anthropic_body
from deployments.generation import Ended, Item, Json, Piece, Started
from deployments.tool_syntax import AnswerParser, CallArguments, CallStarted, Part, ReasoningPart, TextPart


@dataclass(frozen=True)
class Frame:
    """What is told of a message besides the answer. `tool_names` are those that it may call; only once, unless
    `parallel`. Without `thinking`, that is left out. `request_id` is what errors name."""

    id: str
    model: str
    tool_names: tuple[str, ...] = ()
    parallel: bool = True
    thinking: bool = True
    request_id: str = ""
    warnings: tuple[str, ...] = ()


class MessageFold:
    """Takes items, gives events; `whole` is the message once it has ended."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._parser = AnswerParser(frame.tool_names, frame.id, frame.parallel)
        self._blocks: list[Json] = []  # as the message has them; a call's input is still text
        self._is_open = False
        self._prompt_tokens = 0
        self._ended: Ended | None = None

    def feed(self, batch: Sequence[Item]) -> list[Json]:
        """The events of a batch; "error" is the last one of an answer that failed."""
        events: list[Json] = []
        for item in batch:
            match item:
                case Started():
                    self._prompt_tokens = item.prompt_tokens
                    events += [{"type": "message_start", "message": self._message([], None)}, {"type": "ping"}]
                case Piece():
                    events += self._parts(self._parser.feed(item.text))
                case Ended():
                    events += self._end(item)
                case _:
                    raise AssertionError("what was refused is no message")
        return events

    def whole(self) -> Json:
        """The message. Raises ApiError where the answer failed."""
        assert self._ended is not None, "it is complete"
        if failed := failure(self._ended):
            raise failed
        return self._message([_whole_block(block) for block in self._blocks], self._ended)

    def _message(self, content: list[Json], end: Ended | None) -> Json:
        made: Json = {
            "id": self._frame.id,
            "type": "message",
            "role": "assistant",
            "model": self._frame.model,
            "content": content,
            **_stop(end, content),
            "usage": self._usage(end),
        }
        return made | ({"warnings": self._frame.warnings} if self._frame.warnings else {})

    def _usage(self, end: Ended | None) -> Json:
        cached = end.cached_tokens if end else 0
        return {
            "input_tokens": (end.prompt_tokens if end else self._prompt_tokens) - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": end.completion_tokens if end else 0,
        }

    def _end(self, end: Ended) -> list[Json]:
        events = self._parts(self._parser.finish())
        self._ended = end
        if failed := failure(end):
            return [*events, anthropic_body(failed, self._frame.request_id)]
        return [
            *events,
            *self._close(),
            {"type": "message_delta", "delta": _stop(end, self._blocks), "usage": self._usage(end)},
            {"type": "message_stop"},
        ]

    def _parts(self, parts: Sequence[Part]) -> list[Json]:
        events: list[Json] = []
        for part in parts:
            match part:
                case TextPart(text):
                    events += self._add({"type": "text", "text": ""}, "text", text)
                case ReasoningPart(text):
                    if self._frame.thinking:
                        events += self._add({"type": "thinking", "thinking": "", "signature": ""}, "thinking", text)
                case CallStarted(_, call_id, name):
                    block = {"type": "tool_use", "id": call_id.replace("call_", "toolu_"), "name": name, "input": ""}
                    events += [*self._close(), self._open(block, block | {"input": {}})]
                case CallArguments(_, text):
                    self._blocks[-1]["input"] += text
                    events.append(self._delta({"type": "input_json_delta", "partial_json": text}))
        return events

    def _add(self, empty: Json, key: str, text: str) -> list[Json]:
        events: list[Json] = []
        if not self._is_open or self._blocks[-1]["type"] != empty["type"]:
            events += [*self._close(), self._open(empty, dict(empty))]
        self._blocks[-1][key] += text
        return [*events, self._delta({"type": f"{key}_delta", key: text})]

    def _open(self, block: Json, shown: Json) -> Json:
        self._blocks.append(block)
        self._is_open = True
        return {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": shown}

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _close(self) -> list[Json]:
        if not self._is_open:
            return []
        self._is_open = False
        return [{"type": "content_block_stop", "index": len(self._blocks) - 1}]


def _stop(end: Ended | None, content: Sequence[Json]) -> Json:
    reason = None
    if end and end.reason == "length":
        reason = "max_tokens"
    elif end and end.stop_string is not None:
        reason = "stop_sequence"
    elif end:
        reason = "tool_use" if any(block["type"] == "tool_use" for block in content) else "end_turn"
    return {"stop_reason": reason, "stop_sequence": end.stop_string if end else None}


def _whole_block(block: Json) -> Json:
    """Arguments that were cut off are given as far as they go; such that are no JSON, as the text that they are."""
    if block["type"] != "tool_use":
        return block
    try:
        return block | {"input": from_json(block["input"], allow_partial=True)}
    except ValueError:
        return {"type": "text", "text": f"{block['name']}: {block['input']}"}
