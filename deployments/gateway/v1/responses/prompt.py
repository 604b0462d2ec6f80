"""From a request to what a model is asked, and to what the response shows of the request."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.config import Model
from deployments.gateway.v1.fields import ANY_OBJECT, JsonObjectFormat, invalid, tools_of, unsupported
from deployments.gateway.v1.responses.items import listed
from deployments.gateway.v1.responses.schemas import (
    LOGPROBS,
    MEANINGFUL,
    AllowedTools,
    FunctionTool,
    NamedFunction,
    OtherTool,
    ResponseRequest,
    TextJsonSchemaFormat,
)
from deployments.generation import Ask, Function, Json, Tools

SERVICE_TIERS = (None, "auto", "default")


def ask_of(body: ResponseRequest, before: Sequence[Json], user: str, seconds: float) -> Ask:
    """`before` are the messages of the previous response with its answer. Raises ApiError for what cannot be asked."""
    instructions = [{"role": "system", "content": body.instructions}] if body.instructions is not None else []
    messages = [*instructions, *before, *messages_of(listed(body.input))]
    if len(messages) == len(instructions):
        raise invalid("input", "There is nothing to answer: `input` is empty.")
    _check_calls(messages)
    tools = _tools(body)
    schema = _schema(body)
    if tools and tools.choice != "auto" and schema is not None:
        raise invalid("tool_choice", "An answer that must be a call cannot follow another format as well.")
    return Ask(
        messages=tuple(messages),
        tools=tools,
        json_schema=schema,
        sampling=body.sampling(body.max_output_tokens, (body.top_logprobs or 0) if body.with_logprobs else None),
        user=user,
        seconds=seconds,
        trims=body.truncation == "auto",
    )


def messages_of(items: Sequence[Json]) -> list[Json]:
    """Items of an input or of an output, as chat templates take them: what the model says and the calls it makes then
    are one message."""
    messages: list[Json] = []
    for item in items:
        match item["type"]:
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]
                content = "\n".join(part["text"] for part in item["content"])
                messages.append({"role": role, "content": content})
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(_call(item))
            case "function_call_output":
                messages.append({"role": "tool", "content": item["output"], "tool_call_id": item["call_id"]})
    return messages


def history_of(asked: Ask, echo: Json, output: Sequence[Json]) -> list[Json]:
    """The messages that a response leaves to the next one: what it was asked, without its instructions, and what it
    answered."""
    first = 0 if echo["instructions"] is None else 1
    return [*asked.messages[first:], *messages_of(output)]


def echo_of(body: ResponseRequest, model: Model, is_stored: bool, warnings: Sequence[str]) -> Json:
    """The request's fields that a response repeats. `warnings` is an extension: what was ignored."""
    choice = body.tool_choice
    text = body.text.format if body.text else None
    return {
        "background": bool(body.background),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": is_stored,
        "temperature": model.temperature if body.temperature is None else body.temperature,
        "text": {"format": text.model_dump(by_alias=True) if text else {"type": "text"}, "verbosity": "medium"},
        "tool_choice": (choice or "auto") if isinstance(choice, str | None) else choice.model_dump(),
        "tools": [tool.model_dump() for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": model.top_p if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
        "warnings": list(warnings),
    }


def warnings_of(body: ResponseRequest) -> list[str]:
    """A sentence for each thing that was asked and is ignored. Raises ApiError for what nobody may ignore."""
    ignored = [f"include: {name}" for name in body.include or () if name != LOGPROBS]
    if body.text and body.text.verbosity not in (None, "medium"):
        ignored.append("text.verbosity")
    if body.reasoning:
        ignored += [f"reasoning.{name}" for name in body.reasoning.model_dump(exclude_none=True)]
    if body.service_tier not in SERVICE_TIERS:
        ignored.append("service_tier")
    return [*body.warnings(MEANINGFUL), *(f"{name} is not supported here and was ignored" for name in ignored)]


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _check_calls(messages: Sequence[Json]) -> None:
    called: set[str] = set()
    for message in messages:
        called |= {call["id"] for call in message.get("tool_calls", ())}
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            raise invalid(
                "input",
                f"There is an output of the call {message['tool_call_id']!r}, but no such function_call before it. "
                "Send the call as well, or name its response in `previous_response_id`.",
            )


def _functions(body: ResponseRequest) -> list[Function]:
    functions: list[Function] = []
    for number, tool in enumerate(body.tools or ()):
        if not isinstance(tool, FunctionTool):
            instead = f"No tool of type {tool.type!r} runs here: there are only functions, which the client runs."
            raise unsupported(f"tools.{number}.type", instead)
        functions.append(tool.function())
    return functions


def _tools(body: ResponseRequest) -> Tools | None:
    functions, choice = _functions(body), body.tool_choice
    match choice:
        case OtherTool():
            raise unsupported("tool_choice.type", f"No tool of type {choice.type!r} runs here.")
        case NamedFunction():
            choice = choice.name
        case AllowedTools():
            allowed = [tool.name for tool in choice.tools]
            if unknown := sorted(set(allowed) - {function.name for function in functions}):
                raise invalid("tool_choice.tools", f"{unknown[0]!r} is none of `tools`.")
            functions = [function for function in functions if function.name in allowed]
            choice = choice.mode
    return tools_of(functions, choice, body.parallel_tool_calls)


def _schema(body: ResponseRequest) -> Json | None:
    wanted = body.text.format if body.text else None
    match wanted:
        case TextJsonSchemaFormat():
            return wanted.schema_
        case JsonObjectFormat():
            return ANY_OBJECT
    return None
