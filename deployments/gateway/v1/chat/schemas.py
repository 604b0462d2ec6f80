"""Bodies of chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.gateway.v1.fields import (
    MOST_TOOLS,
    ContentPart,
    FunctionName,
    FunctionSpec,
    Nested,
    ResponseFormat,
    SamplingFields,
    Text,
)

MOST_CHOICES = 16
# Fields that change what the answer is: to ignore them would mislead.
MEANINGFUL = {
    "functions": "Use `tools`.",
    "function_call": "Use `tool_choice`.",
    "audio": "The models here answer with text.",
    "web_search_options": "The models here do not search the web.",
}

Content = Text | list[ContentPart]


class SystemMessage(Nested):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Content
    name: Text | None = None


class UserMessage(Nested):
    """What a person says."""

    role: Literal["user"]
    content: Content
    name: Text | None = None


class CalledFunction(Nested):
    """A call as the model made it; `arguments` is JSON."""

    name: FunctionName
    arguments: Text


class ToolCall(Nested):
    """A call in an earlier answer."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(Nested):
    """An earlier answer. What the model thought for it is not given to it again."""

    unremarkable = frozenset({"reasoning_content", "annotations"})
    role: Literal["assistant"]
    content: Content | None = None
    refusal: Text | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(Nested):
    """What a call gave."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Text


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    Field(discriminator="role"),
]


class FunctionTool(Nested):
    """A tool."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Nested):
    """A function by its name."""

    name: FunctionName


class NamedTool(Nested):
    """The one tool to call."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Nested):
    """What a stream has besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # there is nothing to hide in streams of one's own server


class ChatRequest(SamplingFields):
    """A chat completion."""

    model: Text
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    grammar: Text | None = Field(default=None, description="GBNF that the answer follows; not with response_format")
    tools: list[FunctionTool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    user: Text | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
