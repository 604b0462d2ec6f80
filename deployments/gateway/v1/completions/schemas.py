"""Bodies of completions."""

from __future__ import annotations

from pydantic import Field, field_validator

from deployments.gateway.v1.chat.schemas import StreamOptions
from deployments.gateway.v1.fields import ResponseFormat, SamplingFields, Text

MOST_PROMPTS = 16
MEANINGFUL = {"suffix": "The models here only go on with a prompt."}


class CompletionRequest(SamplingFields):
    """A completion. `prompt` is a text or its token ids, or several of either."""

    model: Text
    prompt: list[Text] | list[list[int]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_PROMPTS)
    best_of: int | None = Field(default=None, ge=1, le=1, description="only 1: answers are not compared")
    max_tokens: int | None = Field(default=None, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    response_format: ResponseFormat | None = None
    grammar: Text | None = None
    user: Text | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
            return [value]
        return value

    @field_validator("prompt")
    @classmethod
    def _some(cls, value: list[Text] | list[list[int]]) -> list[Text] | list[list[int]]:
        if not 1 <= len(value) <= MOST_PROMPTS or not all(value):
            raise ValueError(f"must be 1 to {MOST_PROMPTS} prompts, none of them empty")
        return value
