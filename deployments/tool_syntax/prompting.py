"""How functions, calls and results get into the prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from pydantic_core import from_json

from deployments.generation import Function, Json, Tools
from deployments.tool_syntax.markers import CALL, CALL_END

_INSTRUCTIONS = f"""You can call functions to help with the request. Here they are, in JSON:
<tools>
{{functions}}
</tools>
To call a function, write a JSON object with its name and its arguments within {CALL}{CALL_END}:
{CALL}
{{{{"name": <function name>, "arguments": <object of arguments>}}}}
{CALL_END}"""


def described(tools: Tools | None) -> list[Json]:
    """The functions as chat templates take them."""
    return [_description(function) for function in tools.functions] if tools else []


def with_tools(messages: Sequence[Json], tools: Tools | None, template_supports_tools: bool) -> list[Json]:
    """The messages as the model's chat template can render them.

    Where it knows tools: with calls' arguments as objects, names of the functions that have answered, and short ids.
    Where it knows none: the functions are described in the system message, and calls and results are text.
    """
    if template_supports_tools:
        return _for_template(messages)
    result = _as_text(messages)
    if tools:
        functions = "\n".join(json.dumps(function, ensure_ascii=False) for function in described(tools))
        _instruct(result, _INSTRUCTIONS.format(functions=functions))
    return result


def _description(function: Function) -> Json:
    about = {"name": function.name, "description": function.description, "parameters": function.parameters or _ANY}
    return {"type": "function", "function": about}


_ANY: Json = {"type": "object", "properties": {}}


def _for_template(messages: Sequence[Json]) -> list[Json]:
    names: dict[str, str] = {}
    result: list[Json] = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [_call(call) for call in message["tool_calls"]]
            names |= {str(call.get("id")): call["function"]["name"] for call in message["tool_calls"]}
            message = message | {"content": message.get("content") or "", "tool_calls": calls}
        elif message["role"] == "tool":
            name = message.get("name") or names.get(str(message.get("tool_call_id")))
            short = _short_id(str(message.get("tool_call_id")))
            message = message | {"tool_call_id": short} | ({"name": name} if name else {})
        result.append(message)
    return result


def _call(call: Json) -> Json:
    function = call["function"]
    about = {"name": function["name"], "arguments": _arguments(function)}
    return {"id": _short_id(str(call.get("id"))), "type": "function", "function": about}


def _arguments(function: Json) -> object:
    """As an object, which templates write out; what is no JSON, or too deep, stays the text that it is."""
    try:
        return from_json(function.get("arguments") or "{}")
    except ValueError:
        return function["arguments"]


def _short_id(call_id: str) -> str:
    """Mistral's templates insist on 9 letters or digits; few others show ids at all."""
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _as_text(messages: Iterable[Json]) -> list[Json]:
    result: list[Json] = []
    answered = False  # whether the last message is a user's, with results of functions
    for message in messages:
        content = message.get("content") or ""
        role = message["role"]
        if role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        calls = [_called(call) for call in message.get("tool_calls") or ()]
        content = "\n".join(filter(None, (content, *calls)))
        if answered and role == "user":
            # Many templates insist that user and assistant alternate.
            result[-1]["content"] += "\n" + content
        else:
            result.append({"role": role, "content": content})
        answered = message["role"] == "tool" or (answered and role == "user")
    return result


def _called(call: Json) -> str:
    function = call["function"]
    name = json.dumps(function["name"], ensure_ascii=False)
    return f'{CALL}\n{{"name": {name}, "arguments": {function.get("arguments") or "{}"}}}\n{CALL_END}'


def _instruct(messages: list[Json], instructions: str) -> None:
    """Puts instructions into the system message, which is made where there is none."""
    if messages and messages[0]["role"] in ("system", "developer"):
        first = messages[0]
        messages[0] = first | {"content": "\n\n".join(filter(None, (first["content"], instructions)))}
    else:
        messages.insert(0, {"role": "system", "content": instructions})
