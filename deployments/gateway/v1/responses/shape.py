"""The Response object of the OpenAI API, as the types of the `openai` package have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.generation import Ended, Json

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

PREFIX = "resp_"


def item_id(kind: Literal["msg", "fc", "fco", "rs"], response_id: str, place: int | str) -> str:
    """The id of a response's item: it follows from the response and the item's place, on every replica."""
    return f"{kind}_{response_id.removeprefix(PREFIX)}_{place}"


@dataclass(frozen=True)
class Shape:
    """What a response shows whatever the model makes of it. `echo` are the request's fields that it repeats."""

    id: str
    created_at: int
    model: str
    echo: Json

    def response(
        self,
        status: Status,
        output: Sequence[Json] = (),
        usage: Json | None = None,
        error: Json | None = None,
        incomplete_because: str | None = None,
    ) -> Json:
        """The whole object, every field that OpenAI's has."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": incomplete_because} if incomplete_because else None,
            "model": self.model,
            "output": list(output),
            "usage": usage,
            **self.echo,
        }


def usage(ended: Ended, reasoning_tokens: int) -> Json:
    """Tokens that were read and written. What was not in the prefix cache before is in it afterwards."""
    return {
        "input_tokens": ended.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": ended.cached_tokens,
            "cache_write_tokens": ended.prompt_tokens - ended.cached_tokens,
        },
        "output_tokens": ended.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": ended.prompt_tokens + ended.completion_tokens,
    }


def deleted(response_id: str) -> Json:
    """What DELETE answers."""
    return {"id": response_id, "object": "response", "deleted": True}
