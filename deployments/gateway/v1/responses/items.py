"""Items of a request's input."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from deployments.gateway.v1.fields import FunctionName, Nested, Text, invalid, unsupported
from deployments.generation import Json

TEXT_PARTS = ("input_text", "output_text", "refusal", "text", "summary_text", "reasoning_text")

# What items of an output have besides: sent back as input they say nothing new.
OF_OUTPUT = frozenset({"id", "status"})


class Part(Nested):
    """A part of a message or of what a call gave. Only texts are read."""

    unremarkable = frozenset({"annotations", "logprobs"})
    type: str
    text: Text = ""
    refusal: Text = ""


Content = Text | list[Part]


class MessageItem(Nested):
    """What somebody said: a person, the model, or whoever instructs it."""

    unremarkable = OF_OUTPUT
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class CallItem(Nested):
    """A call that the model made; `arguments` is JSON."""

    unremarkable = OF_OUTPUT
    type: Literal["function_call"]
    call_id: Text = Field(min_length=1)
    name: FunctionName
    arguments: Text


class CallOutputItem(Nested):
    """What a call gave."""

    unremarkable = OF_OUTPUT
    type: Literal["function_call_output"]
    call_id: Text = Field(min_length=1)
    output: Content


class ReasoningItem(Nested):
    """What the model thought in an earlier answer. It is shown again, but not given to the model: chat templates leave
    out the reasoning of answers that are done."""

    unremarkable = OF_OUTPUT | {"encrypted_content"}
    type: Literal["reasoning"]
    summary: list[Part] = Field(default_factory=list)
    content: list[Part] | None = None


class OtherItem(BaseModel):
    """An item that nothing here makes or reads."""

    model_config = ConfigDict(extra="ignore")
    type: str


KINDS = {"message": "message", "function_call": "call", "function_call_output": "output", "reasoning": "reasoning"}


def _kind(value: Any) -> str:
    given = value if isinstance(value, dict) else {"type": getattr(value, "type", None)}
    return KINDS.get(str(given.get("type") or "message"), "other")


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("call")]
    | Annotated[CallOutputItem, Tag("output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_kind),
]


def listed(given: str | list[InputItem]) -> list[Json]:
    """The items as they are kept and shown, without ids. Raises ApiError for what no model here can read."""
    if isinstance(given, str):
        return [_message("user", [given])]
    return [_listed(item, f"input.{number}") for number, item in enumerate(given)]


def _listed(item: InputItem, place: str) -> Json:
    match item:
        case MessageItem():
            return _message(item.role, _texts(item.content, f"{place}.content"))
        case CallItem():
            call = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return {"type": "function_call", "status": "completed", **call}
        case CallOutputItem():
            output = "\n".join(_texts(item.output, f"{place}.output"))
            return {
                "type": "function_call_output",
                "status": "completed",
                "call_id": item.call_id,
                "output": output,
            }
        case ReasoningItem():
            summary = [{"type": "summary_text", "text": part.text} for part in item.summary]
            content = [{"type": "reasoning_text", "text": part.text} for part in item.content or ()]
            return {"type": "reasoning", "status": "completed", "summary": summary, "content": content}
    if item.type == "item_reference":
        raise unsupported(f"{place}.type", "Send the item itself, or name its response in `previous_response_id`.")
    raise invalid(f"{place}.type", f"The models here cannot read an item of type {item.type!r}.")


def _message(role: str, texts: list[str]) -> Json:
    if role == "assistant":
        content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    else:
        content = [{"type": "input_text", "text": text} for text in texts]
    return {"type": "message", "status": "completed", "role": role, "content": content}


def _texts(content: Content, place: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    for number, part in enumerate(content):
        if part.type not in TEXT_PARTS:
            message = f"The models here read text; they cannot read a part of type {part.type!r}."
            raise invalid(f"{place}.{number}.type", message)
    return [part.refusal if part.type == "refusal" else part.text for part in content]
