"""Items of a response's output while they are written, and the events that tell of them."""

from __future__ import annotations

from typing import Literal

from deployments.gateway.v1.responses.shape import item_id
from deployments.generation import Json, Logprob

ItemStatus = Literal["completed", "incomplete"]

Change = tuple[str, Json]
"""An event without its number: its type, and its fields."""


def _token(logprob: Logprob) -> Json:
    top = [{"token": token, "bytes": list(raw), "logprob": value} for token, raw, value in logprob.top]
    return {"token": logprob.token, "bytes": list(logprob.raw), "logprob": logprob.logprob, "top_logprobs": top}


class OpenText:
    """What the model says: a message. Or what it thinks: a reasoning item. Both have one part, of text."""

    def __init__(
        self, kind: Literal["message", "reasoning"], response_id: str, place: int, with_logprobs: bool
    ) -> None:
        self.kind = kind
        self._name = "output_text" if kind == "message" else "reasoning_text"
        self._id = item_id("msg" if kind == "message" else "rs", response_id, place)
        self._place = place
        self._with_logprobs = with_logprobs and kind == "message"
        self._text: list[str] = []
        self._logprobs: list[Json] = []

    def begin(self) -> list[Change]:
        """The item and its part are there, without text."""
        return [
            ("response.output_item.added", {"output_index": self._place, "item": self._item("in_progress", [])}),
            ("response.content_part.added", {**self._where, "part": self._part()}),
        ]

    def add(self, text: str, logprobs: list[Logprob]) -> list[Change]:
        """More text."""
        fields: Json = {**self._where, "delta": text}
        self._text.append(text)
        if self.kind == "message":
            fields["logprobs"] = [_token(logprob) for logprob in logprobs] if self._with_logprobs else []
            self._logprobs += fields["logprobs"]
        return [(f"response.{self._name}.delta", fields)]

    def end(self, status: ItemStatus) -> tuple[list[Change], Json]:
        """The events of the end, and the item as it stays."""
        part = self._part()
        item = self._item(status, [part])
        done: Json = {**self._where, "text": part["text"]}
        if self.kind == "message":
            done["logprobs"] = self._logprobs
        changes: list[Change] = [
            (f"response.{self._name}.done", done),
            ("response.content_part.done", {**self._where, "part": part}),
            ("response.output_item.done", {"output_index": self._place, "item": item}),
        ]
        return changes, item

    @property
    def _where(self) -> Json:
        return {"item_id": self._id, "output_index": self._place, "content_index": 0}

    def _part(self) -> Json:
        part: Json = {"type": self._name, "text": "".join(self._text)}
        if self.kind == "message":
            part["annotations"] = []
            if self._with_logprobs:
                part["logprobs"] = list(self._logprobs)
        return part

    def _item(self, status: ItemStatus | Literal["in_progress"], content: list[Json]) -> Json:
        item: Json = {"id": self._id, "type": self.kind, "status": status, "content": content}
        return item | ({"role": "assistant"} if self.kind == "message" else {"summary": []})


class OpenCall:
    """A call of a function, whose arguments are JSON that the model is writing."""

    def __init__(self, index: int, call_id: str, name: str, response_id: str, place: int) -> None:
        self.index = index
        self._name = name
        self._call_id = call_id
        self._id = item_id("fc", response_id, place)
        self._place = place
        self._arguments: list[str] = []

    def begin(self) -> list[Change]:
        """The item is there, without arguments."""
        return [("response.output_item.added", {"output_index": self._place, "item": self._item("in_progress")})]

    def add(self, arguments: str) -> list[Change]:
        """More of the arguments."""
        self._arguments.append(arguments)
        return [("response.function_call_arguments.delta", {**self._where, "delta": arguments})]

    def end(self, status: ItemStatus) -> tuple[list[Change], Json]:
        """The events of the end, and the item as it stays."""
        item = self._item(status)
        done = {**self._where, "name": self._name, "arguments": item["arguments"]}
        changes: list[Change] = [
            ("response.function_call_arguments.done", done),
            ("response.output_item.done", {"output_index": self._place, "item": item}),
        ]
        return changes, item

    @property
    def _where(self) -> Json:
        return {"item_id": self._id, "output_index": self._place}

    def _item(self, status: ItemStatus | Literal["in_progress"]) -> Json:
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._arguments),
        }
