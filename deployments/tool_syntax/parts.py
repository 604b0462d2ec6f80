"""What an answer consists of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextPart:
    """Text for the reader."""

    text: str


@dataclass(frozen=True)
class ReasoningPart:
    """What the model thought before it answered."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """The model calls `name`, one of the functions offered. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of the arguments of the `index`-th call. All pieces together are the JSON text that the model wrote."""

    index: int
    json_text: str


Part = TextPart | ReasoningPart | CallStarted | CallArguments
