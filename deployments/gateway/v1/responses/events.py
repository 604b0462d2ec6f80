"""From what a model makes to the typed events of a response's stream: the same events with the same numbers on every
replica, whenever and however often it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from deployments.gateway.v1.json_text import json_bytes
from deployments.gateway.v1.reasoning import ReasoningShare
from deployments.gateway.v1.responses.output import Change, ItemStatus, OpenCall, OpenText
from deployments.gateway.v1.responses.shape import Shape, Status, usage
from deployments.gateway.v1.sse import event
from deployments.generation import Ask, Ended, Item, Json, Logprob, Piece, Refused, Started
from deployments.tool_syntax import AnswerParser, CallArguments, CallStarted, Part, ReasoningPart, TextPart

REFUSAL_CODES = {"invalid": "invalid_prompt", "too_long": "invalid_prompt", "refused": "invalid_prompt"} | {
    "queue_full": "rate_limit_exceeded",
    "failed": "server_error",
}


@dataclass(frozen=True)
class Event:
    """One event of a stream; its number rises from 0 by 1."""

    number: int
    type: str
    fields: Json

    @property
    def body(self) -> Json:
        """As it is in `data`."""
        return {"type": self.type, "sequence_number": self.number, **self.fields}

    def encoded(self, with_id: bool) -> bytes:
        """As it goes over the wire. With an id a client can go on after it."""
        return event(json_bytes(self.body), self.type, self.number if with_id else None)


class ResponseFold:
    """Takes the items of one answer in their order and gives events. Depends on nothing else: not on time, and not on
    how many items come at once. An answer that says nothing at all is one empty message.
    """

    def __init__(self, shape: Shape, ask: Ask) -> None:
        self._shape = shape
        self._with_logprobs = ask.sampling.top_logprobs is not None
        names = [function.name for function in ask.tools.functions] if ask.tools else []
        self._parser = AnswerParser(names, shape.id, ask.tools is None or ask.tools.parallel)
        self._status: Status = "queued" if shape.echo["background"] else "in_progress"
        self._output: list[Json] = []
        self._open: OpenText | OpenCall | None = None
        self._logprobs: list[Logprob] = []
        self._share = ReasoningShare()
        self._next_number = 0
        self.response: Json = shape.response(self._status)

    @property
    def ended(self) -> bool:
        """The response is as it stays, and no event follows."""
        return self._status not in ("queued", "in_progress")

    def begin(self) -> list[Event]:
        """The first events, before any item."""
        created: Change = ("response.created", {"response": self.response})
        return self._numbered([created, (f"response.{self._status}", {"response": self.response})])

    def feed(self, items: Sequence[Item]) -> list[Event]:
        """The events of these items."""
        return [made for item in items for made in self._numbered(self._item(item))]

    def fail(self, code: str, message: str) -> list[Event]:
        """The events of an end that the model did not come to: `code` is one of the type ResponseError."""
        return self._numbered(self._failed(code, message, None))

    def break_off(self, code: str | None, message: str) -> list[Event]:
        """The event of a stream that cannot go on, whatever became of the response. It has the number of the one before
        it: whoever goes on after it, once that is possible again, misses none."""
        return [Event(self._next_number - 1, "error", {"code": code, "message": message, "param": None})]

    def _numbered(self, changes: list[Change]) -> list[Event]:
        events = [Event(self._next_number + n, kind, fields) for n, (kind, fields) in enumerate(changes)]
        self._next_number += len(events)
        return events

    def _item(self, item: Item) -> list[Change]:
        if isinstance(item, Started):
            return self._start()
        if isinstance(item, Piece):
            self._share.characters += len(item.text)
            self._logprobs += item.logprobs
            return [*self._start(), *self._parts(self._parser.feed(item.text))]
        if isinstance(item, Ended):
            return self._end(item)
        if isinstance(item, Refused):
            return self._failed(REFUSAL_CODES[item.kind], item.message, None)
        assert_never(item)

    def _start(self) -> list[Change]:
        if self._status != "queued":
            return []
        self._status = "in_progress"
        self.response = self._shape.response("in_progress")
        return [("response.in_progress", {"response": self.response})]

    def _parts(self, parts: list[Part]) -> list[Change]:
        return [change for part in parts for change in self._part(part)]

    def _part(self, part: Part) -> list[Change]:
        if isinstance(part, TextPart):
            return self._text(part.text)
        if isinstance(part, ReasoningPart):
            self._share.reasoning_characters += len(part.text)
            self._logprobs = []
            if isinstance(self._open, OpenText) and self._open.kind == "reasoning":
                return self._open.add(part.text, [])
            changes = self._opened(OpenText("reasoning", self._shape.id, self._place, self._with_logprobs))
            return [*changes, *self._open_text.add(part.text, [])]
        self._logprobs = []
        if isinstance(part, CallStarted):
            return self._opened(OpenCall(part.index, part.id, part.name, self._shape.id, self._place))
        if isinstance(part, CallArguments):
            assert isinstance(self._open, OpenCall)
            assert self._open.index == part.index
            return self._open.add(part.json_text)
        assert_never(part)

    def _text(self, text: str) -> list[Change]:
        changes: list[Change] = []
        if not (isinstance(self._open, OpenText) and self._open.kind == "message"):
            changes = self._opened(OpenText("message", self._shape.id, self._place, self._with_logprobs))
        logprobs, self._logprobs = self._logprobs, []
        return [*changes, *self._open_text.add(text, logprobs)]

    @property
    def _open_text(self) -> OpenText:
        assert isinstance(self._open, OpenText)
        return self._open

    @property
    def _place(self) -> int:
        """Where the next item goes."""
        return len(self._output) + (self._open is not None)

    def _opened(self, item: OpenText | OpenCall) -> list[Change]:
        changes = [*self._close("completed"), *item.begin()]
        self._open = item
        return changes

    def _close(self, status: ItemStatus) -> list[Change]:
        if self._open is None:
            return []
        changes, item = self._open.end(status)
        self._open = None
        self._output.append(item)
        return changes

    def _end(self, ended: Ended) -> list[Change]:
        if ended.reason in ("error", "timeout"):
            return [*self._start(), *self._failed("server_error", ended.message or "The answer failed.", ended)]
        if ended.reason == "cancelled":
            changes = self._rest("incomplete")
            # OpenAI publishes no event of its own for this: the response in it says that it was cancelled.
            return [*changes, self._final("response.incomplete", "cancelled", ended)]
        is_whole = ended.reason == "stop"
        changes = [*self._start(), *self._rest("completed" if is_whole else "incomplete")]
        if not self._output:
            changes += self._empty_message("completed" if is_whole else "incomplete")
        if is_whole:
            return [*changes, self._final("response.completed", "completed", ended)]
        return [*changes, self._final("response.incomplete", "incomplete", ended)]

    def _rest(self, status: ItemStatus) -> list[Change]:
        changes = self._parts(self._parser.finish())
        return [*changes, *self._close(status)]

    def _empty_message(self, status: ItemStatus) -> list[Change]:
        changes = self._opened(OpenText("message", self._shape.id, self._place, self._with_logprobs))
        return [*changes, *self._close(status)]

    def _failed(self, code: str, message: str, ended: Ended | None) -> list[Change]:
        changes = self._rest("incomplete")
        error = {"code": code, "message": message}
        return [
            *changes,
            ("error", {**error, "param": None}),
            self._final("response.failed", "failed", ended, error),
        ]

    def _final(self, kind: str, status: Status, ended: Ended | None, error: Json | None = None) -> Change:
        self._status = status
        self.response = self._shape.response(
            status,
            self._output,
            usage(ended, self._share.tokens(ended)) if ended else None,
            error,
            "max_output_tokens" if status == "incomplete" else None,
        )
        return kind, {"response": self.response}
