"""Bodies of embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from deployments.gateway.v1.fields import OpenBody, Text

MOST_INPUTS = 2048
MEANINGFUL: dict[str, str] = {}


class EmbeddingRequest(OpenBody):
    """Texts (or their token ids) to be made vectors of."""

    model: Text
    input: list[Text] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, description="the first so many, made of length 1 again")
    user: Text | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
            return [value]
        return value

    @field_validator("input")
    @classmethod
    def _some(cls, value: list[Text] | list[list[int]]) -> list[Text] | list[list[int]]:
        if not 1 <= len(value) <= MOST_INPUTS or not all(value):
            raise ValueError(f"must be 1 to {MOST_INPUTS} texts, none of them empty")
        return value
