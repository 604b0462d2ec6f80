"""From a request for a message to an Ask."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.fields import OtherPart, invalid, tools_of, unsupported
from deployments.gateway.v1.json_text import json_bytes
from deployments.gateway.v1.messages.schemas import (
    Block,
    CountRequest,
    MessagesRequest,
    Part,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from deployments.generation import Ask, Function, Json, Sampling, Tools

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def ask_of(body: MessagesRequest, user: str, seconds: float) -> Ask:
    """Raises ApiError for what cannot be asked."""
    sampling = Sampling(
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=tuple(body.stop_sequences or ()),
    )
    schema = body.output_config.format.schema_ if body.output_config and body.output_config.format else None
    tools = tools_in(body)
    if tools and tools.choice != "auto" and schema is not None:
        raise invalid("tool_choice", "An answer that must be a call cannot follow another format as well.")
    return Ask(
        messages=tuple(messages_of(body)),
        tools=tools,
        json_schema=schema,
        sampling=sampling,
        user=user,
        seconds=seconds,
    )


def tools_in(body: CountRequest) -> Tools | None:
    """The functions that the model may call. Raises ApiError."""
    functions: list[Function] = []
    for number, tool in enumerate(body.tools or ()):
        if tool.type not in (None, "custom"):
            raise unsupported(f"tools.{number}.type", "Tools run at the client here: describe them by `input_schema`.")
        if tool.input_schema is None:
            raise invalid(f"tools.{number}.input_schema", "`input_schema` is missing.")
        functions.append(Function(tool.name, tool.description or "", tool.input_schema, bool(tool.strict)))
    choice = body.tool_choice
    if choice is None:
        return tools_of(functions, None, None)
    if choice.type == "tool" and choice.name is None:
        raise invalid("tool_choice.name", "`tool_choice` of type tool needs the tool's `name`.")
    name = choice.name if choice.type == "tool" else CHOICES[choice.type]
    return tools_of(functions, name, not choice.disable_parallel_tool_use)


def messages_of(body: CountRequest) -> list[Json]:
    """As chat templates take them: neighbours of one role are one turn. Raises ApiError."""
    if body.messages[-1].role == "assistant":
        raise unsupported(
            f"messages.{len(body.messages) - 1}.role", "Answers cannot be begun here: end with a message of the user."
        )
    made: list[Json] = []
    system = _texts(body.system or "", "system")
    if system:
        made.append({"role": "system", "content": system})
    called: set[str] = set()
    for number, turn in enumerate(body.messages):
        for message in _messages(turn, f"messages.{number}.content", called):
            before = made[-1] if made else {}
            if message["role"] == before.get("role") and before.keys() == message.keys() == {"role", "content"}:
                before["content"] += "\n" + message["content"]
            else:
                made.append(message)
    return made


def _messages(turn: Turn, place: str, called: set[str]) -> list[Json]:
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    if turn.role == "assistant":
        return [_answer(turn.content, place, called)]
    made: list[Json] = []
    text: list[str] = []
    for number, block in enumerate(turn.content):
        match block:
            case TextBlock():
                text.append(block.text)
            case ToolResultBlock() if turn.role == "user":
                if block.tool_use_id not in called:
                    message = f"There is no call {block.tool_use_id!r} in the messages before this one."
                    raise invalid(f"{place}.{number}.tool_use_id", message)
                content = _texts(block.content or "", f"{place}.{number}.content")
                content = f"Error: {content}" if block.is_error else content
                made.append({"role": "tool", "content": content, "tool_call_id": block.tool_use_id})
            case _:
                raise _unreadable(block, turn.role, f"{place}.{number}")
    return [*made, {"role": turn.role, "content": "\n".join(text)}] if text or not made else made


def _answer(blocks: Sequence[Block], place: str, called: set[str]) -> Json:
    text: list[str] = []
    calls: list[Json] = []
    for number, block in enumerate(blocks):
        match block:
            case TextBlock():
                text.append(block.text)
            case ToolUseBlock():
                called.add(block.id)
                function = {"name": block.name, "arguments": json_bytes(block.input).decode()}
                calls.append({"id": block.id, "type": "function", "function": function})
            case ThinkingBlock():
                pass
            case _:
                raise _unreadable(block, "assistant", f"{place}.{number}")
    return {"role": "assistant", "content": "\n".join(text)} | ({"tool_calls": calls} if calls else {})


def _texts(content: str | Sequence[Part], place: str) -> str:
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if isinstance(part, OtherPart):
            raise _unreadable(part, "user", f"{place}.{number}")
    return "\n".join(part.text for part in content if isinstance(part, TextBlock))


def _unreadable(block: Block, role: str, place: str) -> ApiError:
    if isinstance(block, OtherPart):
        message = f"The models here read text; they cannot read a block of type {block.type!r}."
        return ApiError(400, "invalid_request_error", "unsupported_content", message, f"{place}.type")
    return invalid(f"{place}.type", f"A message of the role {role} cannot have a block of type {block.type!r}.")
