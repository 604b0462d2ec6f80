"""POST /v1/tokenize and /v1/detokenize: what a model makes of a text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from deployments.gateway.services import ServicesOf
from deployments.gateway.v1.callers import ReaderOf
from deployments.gateway.v1.chat.prompt import messages_of
from deployments.gateway.v1.chat.schemas import MEANINGFUL as IN_CHATS
from deployments.gateway.v1.chat.schemas import ChatMessage, FunctionTool
from deployments.gateway.v1.fields import MOST_TOOLS, OpenBody, Text, tools_of
from deployments.generation import Ask

router = APIRouter(tags=["Tokens"])

# Nobody may ignore them: the tokens would be others.
MEANINGFUL = IN_CHATS | {
    "tool_choice": "Without tools there is none: leave them out.",
    "add_generation_prompt": "A chat's tokens end where the answer begins.",
    "add_special": "A text's tokens are those that /v1/completions reads, a chat's those of /v1/chat/completions.",
    "parse_special": "Names of special tokens in a text stay text.",
}
MOST_TOKENS = 1_000_000
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class TokenizeRequest(OpenBody):
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
    """A text's tokens. `pieces` are their texts; a character that several tokens make up is in none of them whole.
    `warnings`: fields that were ignored, if any."""

    tokens: list[int]
    pieces: list[str]
    count: int
    warnings: list[str] | None = None


class DetokenizeRequest(OpenBody):
    """Token ids of a model."""

    model: Text
    tokens: list[TokenId] = Field(max_length=MOST_TOKENS)


class Detokenized(BaseModel):
    """The text that tokens make; special ones make none. `warnings` as those of Tokens."""

    text: str
    warnings: list[str] | None = None


@router.post("/v1/tokenize", response_model_exclude_none=True)
async def tokenize(body: TokenizeRequest, services: ServicesOf, _: ReaderOf) -> Tokens:
    """The tokens of a text, or of a chat's prompt."""
    warnings = body.warnings(MEANINGFUL)
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
        warnings=warnings or None,
    )


@router.post("/v1/detokenize", response_model_exclude_none=True)
async def detokenize(body: DetokenizeRequest, services: ServicesOf, _: ReaderOf) -> Detokenized:
    """The text of tokens."""
    warnings = body.warnings(MEANINGFUL)
    made = await services.asking.tokenize(body.model, Ask(token_ids=tuple(body.tokens)))
    text = b"".join(made.pieces).decode("utf-8", "replace")
    return Detokenized(text=text, warnings=warnings or None)
