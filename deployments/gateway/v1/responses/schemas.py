"""The body of a request for a response."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from deployments.gateway.v1.fields import (
    MOST_TOOLS,
    FunctionName,
    FunctionSpec,
    JsonObjectFormat,
    JsonSchema,
    Metadata,
    Nested,
    Object,
    SamplingFields,
    Text,
    TextFormat,
)
from deployments.gateway.v1.responses.items import InputItem

# Fields that change what the answer is: to ignore them would mislead.
MEANINGFUL = {
    "conversation": "Use `previous_response_id`.",
    "prompt": "Send the text in `instructions` and `input`.",
    "context_management": "Send in `input` what the model is to read.",
    "moderation": "Nothing here moderates.",
    "messages": "Use `input`.",
    "max_tokens": "Use `max_output_tokens`.",
    "max_completion_tokens": "Use `max_output_tokens`.",
    "response_format": "Use `text.format`.",
    "functions": "Use `tools`.",
    "function_call": "Use `tool_choice`.",
    "n": "A response has one answer.",
}

LOGPROBS = "message.output_text.logprobs"


class TextJsonSchemaFormat(JsonSchema):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    schema_: Object = Field(alias="schema")


class TextConfig(Nested):
    """What form the text has."""

    format: Annotated[TextFormat | JsonObjectFormat | TextJsonSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class FunctionTool(FunctionSpec):
    """A function that the model may call."""

    type: Literal["function"]


class OtherTool(BaseModel):
    """A tool that OpenAI runs."""

    model_config = ConfigDict(extra="ignore")
    type: str


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "function" if kind == "function" else "allowed" if kind == "allowed_tools" else "other"


Tool = Annotated[Annotated[FunctionTool, Tag("function")] | Annotated[OtherTool, Tag("other")], Discriminator(_kind)]


class NamedFunction(Nested):
    """The one function to call, or one of those allowed."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(Nested):
    """Which of the tools may be called this time."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedFunction] = Field(min_length=1)


ToolObject = Annotated[
    Annotated[NamedFunction, Tag("function")]
    | Annotated[AllowedTools, Tag("allowed")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(_kind),
]


class Reasoning(BaseModel):
    """How much the model is to think. The models here think as they were taught."""

    model_config = ConfigDict(extra="allow")
    effort: str | None = None
    summary: str | None = None


class StreamOptions(Nested):
    """What a stream has besides the answer."""

    include_obfuscation: bool | None = None  # there is nothing to hide in streams of one's own server


class ResponseRequest(SamplingFields):
    """A response that is to be made."""

    model: Text
    input: Text | list[InputItem] = Field(description="what the model is to answer: a text, or items of a conversation")
    instructions: Text | None = Field(default=None, description="goes before everything else, for this response only")
    previous_response_id: Text | None = Field(
        default=None, description="a stored response: its input and output go before the input of this one"
    )
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ToolObject | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    include: list[str] | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    store: bool | None = Field(
        default=None, description="keep the response; where it is not said, that of whoever is known"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = Field(default=None, description="answer at once, and go on whoever stays connected")
    service_tier: Text | None = None
    user: Text | None = None
    safety_identifier: Text | None = Field(default=None, max_length=64)
    prompt_cache_key: Text | None = None

    @property
    def with_logprobs(self) -> bool:
        """Whether the answer tells how probable its tokens were."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
