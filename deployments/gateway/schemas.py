"""Field types that several concepts share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints


def _storable(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not contain the character U+0000")
    return value


def _address(value: str) -> str:
    name, _, domain = value.partition("@")
    if not name or not domain or "@" in domain or any(letter.isspace() for letter in value):
        raise ValueError("must be an e-mail address like ann@example.org")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


STORABLE = BeforeValidator(_storable)
NOT_BLANK = AfterValidator(_not_blank)
Text = Annotated[str, STORABLE]
# Constraints stand before STORABLE: the other way round Pydantic's messages speak of "items after validation".
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=64), STORABLE]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=254),
    AfterValidator(_address),
    STORABLE,
]
Password = Annotated[str, StringConstraints(min_length=8, max_length=1024), STORABLE]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256), STORABLE]
Content = Annotated[str, StringConstraints(max_length=100_000), NOT_BLANK, STORABLE]


class Body(BaseModel):
    """A request body. Unknown fields are errors: a misspelt one must not pass in silence."""

    model_config = ConfigDict(extra="forbid")


class Ok(BaseModel):
    """It was done."""

    ok: bool
