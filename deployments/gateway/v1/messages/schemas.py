"""Bodies of Anthropic's Messages API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from deployments.gateway.v1.fields import MOST_STOP, MOST_TOOLS, FunctionName, Nested, Object, OpenBody, OtherPart, Text
from deployments.generation import Json

# Fields that change what the answer is: to ignore them would mislead.
MEANINGFUL = {
    "mcp_servers": "The models here call functions of the client: offer them as `tools`.",
    "container": "Nothing of an answer runs on this server.",
}

# It needs not be set: every prefix is cached as long as there is room.
CACHE = frozenset({"cache_control"})


class TextBlock(Nested):
    """Text."""

    unremarkable = CACHE
    type: Literal["text"]
    text: Text


class ToolUseBlock(Nested):
    """A call in an earlier answer."""

    unremarkable = CACHE
    type: Literal["tool_use"]
    id: Text
    name: FunctionName
    input: Object


def _kind_of_part(value: Any) -> str:
    return "text" if _type_of(value) == "text" else "other"


def _kind_of_block(value: Any) -> str:
    kind = _type_of(value)
    if kind == "redacted_thinking":
        return "thinking"
    return kind if kind in ("text", "tool_use", "tool_result", "thinking") else "other"


def _type_of(value: Any) -> object:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


Part = Annotated[
    Annotated[TextBlock, Tag("text")] | Annotated[OtherPart, Tag("other")],
    Discriminator(_kind_of_part),
]


class ToolResultBlock(Nested):
    """What a call gave."""

    unremarkable = CACHE
    type: Literal["tool_result"]
    tool_use_id: Text
    content: Text | list[Part] | None = None
    is_error: bool | None = None


class ThinkingBlock(BaseModel):
    """What the model thought in an earlier answer. It is not given to it again: models are trained that way."""

    type: Literal["thinking", "redacted_thinking"]


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[OtherPart, Tag("other")],
    Discriminator(_kind_of_block),
]


class Turn(Nested):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: Text | list[Block]


class Tool(Nested):
    """A function of the client's."""

    unremarkable = CACHE
    type: Text | None = None
    name: FunctionName
    description: Text | None = None
    input_schema: Object | None = None
    strict: bool | None = None


class ToolChoice(Nested):
    """Whether the model may, must, or must not call, and which function."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Nested):
    """Whether thinking is shown: unless `disabled`. It is the model that decides whether it thinks, and how long."""

    type: Text


class JsonFormat(Nested):
    """The answer follows a schema."""

    type: Literal["json_schema"]
    schema_: Object = Field(alias="schema")


class OutputConfig(Nested):
    """What the answer is like."""

    format: JsonFormat | None = None


class CountRequest(OpenBody):
    """What the model reads."""

    model: Text
    messages: list[Turn] = Field(min_length=1)
    system: Text | list[TextBlock] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Json | None = None


class MessagesRequest(CountRequest):
    """A message to be answered."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    stop_sequences: list[Annotated[Text, Field(min_length=1)]] | None = Field(default=None, max_length=MOST_STOP)
    stream: bool | None = None
    metadata: Json | None = None
    service_tier: Text | None = None
