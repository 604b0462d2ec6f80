"""Field types that several concepts share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _storable(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the character U+0000")
    return value


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, StringConstraints(strip_whitespace=True, min_length=3, max_length=64)]
Email = Annotated[
    Text,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"),
]
Password = Annotated[Text, Field(min_length=8, max_length=1024)]
Content = Annotated[Text, StringConstraints(pattern=r"\S", max_length=100_000)]


class Body(BaseModel):
    """A request body. Unknown fields are errors: a misspelt one must not pass in silence."""

    model_config = ConfigDict(extra="forbid")


class Ok(BaseModel):
    """It was done."""

    ok: bool
