"""From a chat request to an Ask."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.gateway.v1.chat.schemas import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    NamedTool,
    SystemMessage,
    ToolMessage,
)
from deployments.gateway.v1.fields import invalid, schema_of, text_of, tools_of
from deployments.generation import Ask, Json


def ask_of(body: ChatRequest, user: str, seconds: float) -> Ask:
    """Raises ApiError for what cannot be asked."""
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs", "`top_logprobs` needs `logprobs`: true.")
    schema = schema_of(body.response_format)
    if body.grammar is not None and schema is not None:
        raise invalid("grammar", "Give either `grammar` or `response_format`.")
    choice = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else body.tool_choice
    tools = tools_of((tool.function.function() for tool in body.tools or ()), choice, body.parallel_tool_calls)
    if tools and tools.choice != "auto" and (schema is not None or body.grammar is not None):
        raise invalid("tool_choice", "An answer that must be a call cannot follow another format as well.")
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return Ask(
        messages=tuple(messages_of(body.messages)),
        tools=tools,
        json_schema=schema,
        grammar=body.grammar,
        sampling=body.sampling(most, (body.top_logprobs or 0) if body.logprobs else None),
        n=body.n or 1,
        user=user,
        seconds=seconds,
    )


def messages_of(messages: Sequence[ChatMessage]) -> list[Json]:
    """As chat templates take them. Raises ApiError."""
    called: set[str] = set()
    made: list[Json] = []
    for number, message in enumerate(messages):
        place = f"messages.{number}"
        made.append(_message(message, place))
        if isinstance(message, AssistantMessage):
            called |= {call.id for call in message.tool_calls or ()}
        if isinstance(message, ToolMessage) and message.tool_call_id not in called:
            raise invalid(
                f"{place}.tool_call_id", f"There is no call {message.tool_call_id!r} in the messages before this one."
            )
    return made


def _message(message: ChatMessage, place: str) -> Json:
    content = text_of(message.content, f"{place}.content")
    match message:
        case SystemMessage():
            return {"role": "system", "content": content}
        case ToolMessage():
            return {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}
        case AssistantMessage(tool_calls=[_, *_] as made):
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in made
            ]
            return {"role": "assistant", "content": content, "tool_calls": calls}
    named = {"name": message.name} if message.name else {}
    return {"role": message.role, "content": content, **named}
