"""A conversation as JSON: `{"format", "version", "conversation", "participants", "messages": […]}`."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from deployments.gateway.transfer.reading import Reading, fault, faults
from deployments.gateway.transfer.schemas import JsonFile, LinkedMessage, PlacedMessage


class JsonWriter:
    """Writes a file piece by piece."""

    media_type = "application/json"
    suffix = "json"

    def __init__(self) -> None:
        self._separator = "\n"

    def head(self, head: dict[str, Any]) -> str:
        """All but the messages."""
        return orjson.dumps(head).decode().removesuffix("}") + ',"messages":['

    def message(self, _: int, part: str) -> str:
        """One message, as the database made it."""
        separator, self._separator = self._separator, ",\n"
        return separator + part

    def end(self) -> str:
        """What closes the file."""
        return "\n]}\n"


def read_json(body: bytes) -> Reading:
    """Raises ProblemError that names the place: 400 where it is not JSON, 422 where it is no such file."""
    try:
        file = JsonFile.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise fault("The body", first["msg"], 400) from None
        raise faults(error, lambda place: ".".join(map(str, place)) or "body") from None
    return Reading(file.conversation, _depth_first(file.messages))


def _depth_first(messages: list[LinkedMessage]) -> list[PlacedMessage]:
    """Siblings keep the order that they have in the file."""
    children: dict[str | None, list[LinkedMessage]] = {None: []}
    for number, message in enumerate(messages):
        if message.parent_id not in children:
            raise fault(f"messages.{number}.parent_id", "no message before this one has this id")
        if message.id in children:
            raise fault(f"messages.{number}.id", "another message has this id")
        children[message.parent_id].append(message)
        children[message.id] = []
    placed: list[PlacedMessage] = []
    waiting = [(1, message) for message in reversed(children[None])]
    while waiting:
        depth, message = waiting.pop()
        fields = {name: getattr(message, name) for name in PlacedMessage.model_fields if name != "depth"}
        placed.append(PlacedMessage.model_construct(depth=depth, **fields))
        waiting += [(depth + 1, child) for child in reversed(children[message.id])]
    return placed
