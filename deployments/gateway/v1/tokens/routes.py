"""POST /v1/tokenize and /v1/detokenize: what a model makes of a text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from deployments.gateway.schemas import Body
from deployments.gateway.services import ServicesOf
from deployments.gateway.v1.callers import ReaderOf
from deployments.gateway.v1.chat.prompt import messages_of
from deployments.gateway.v1.chat.schemas import ChatMessage, FunctionTool
from deployments.gateway.v1.fields import MOST_TOOLS, Text, tools_of
from deployments.generation import Ask

router = APIRouter(tags=["Tokens"])

MOST_TOKENS = 1_000_000
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class TokenizeRequest(Body):
    """Either a text as it stands, or the messages of a chat, as the model's template writes them."""

    model: Text
    text: Text | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    tools: list[FunctionTool] | None = Field(default=None, max_length=MOST_TOOLS)

    @model_validator(mode="after")
    def _either(self) -> TokenizeRequest:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either `text` or `messages`")
        return self


class Tokens(BaseModel):
    """A text's tokens. `pieces` are their texts; a character that several tokens make up is in none of them whole."""

    tokens: list[int]
    pieces: list[str]
    count: int


class DetokenizeRequest(Body):
    """Token ids of a model."""

    model: Text
    tokens: list[TokenId] = Field(max_length=MOST_TOKENS)


class Detokenized(BaseModel):
    """The text that tokens make; special ones make none."""

    text: str


@router.post("/v1/tokenize")
async def tokenize(body: TokenizeRequest, services: ServicesOf, _: ReaderOf) -> Tokens:
    """The tokens of a text, or of a chat's prompt."""
    if body.messages is None:
        ask = Ask(text=body.text)
    else:
        tools = tools_of((tool.function.function() for tool in body.tools or ()), None, None)
        ask = Ask(messages=tuple(messages_of(body.messages)), tools=tools)
    made = await services.asking.tokenize(body.model, ask)
    return Tokens(
        tokens=list(made.token_ids),
        pieces=[piece.decode("utf-8", "replace") for piece in made.pieces],
        count=len(made.token_ids),
    )


@router.post("/v1/detokenize")
async def detokenize(body: DetokenizeRequest, services: ServicesOf, _: ReaderOf) -> Detokenized:
    """The text of tokens."""
    made = await services.asking.tokenize(body.model, Ask(token_ids=tuple(body.tokens)))
    return Detokenized(text=b"".join(made.pieces).decode("utf-8", "replace"))
