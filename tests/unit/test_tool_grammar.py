"""Grammars of calls: what they allow, and that the bundled model calls by them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jsonschema
import pytest

from deployments.config import bundled_model_file
from deployments.generation import Function, Json, Tools
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest, InvalidRequest
from deployments.model.engine.grammar import Grammar, schema_grammar
from deployments.tool_syntax import AnswerParser, BadTools, CallArguments, CallStarted, tool_grammar, with_tools
from deployments.tool_syntax.families import Family

CITY: Json = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}
WEATHER = Function("get_weather", "Weather of a city", CITY, strict=True)
ADD = Function(
    "add",
    "Adds numbers",
    {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}},
        "required": ["a"],
        "$defs": {"n": {"type": "integer"}},
    },
)
FAMILIES: tuple[Family, ...] = ("hermes", "mistral", "mistral-args", "llama3")
GOOD, BAD = '{"city": "Oslo", "unit": "celsius"}', '{"city": 1}'


def written(family: Family, *calls: tuple[str, str]) -> str:
    """Calls as the family's models write them."""
    key = "parameters" if family == "llama3" else "arguments"
    objects = [f'{{"name": "{name}", "{key}": {arguments}}}' for name, arguments in calls]
    match family:
        case "hermes":
            return "\n".join(f"<tool_call>\n{made}\n</tool_call>" for made in objects)
        case "mistral":
            return f"[TOOL_CALLS][{', '.join(objects)}]"
        case "mistral-args":
            return "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in calls)
    return "; ".join(objects)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(bundled_model_file(), EngineOptions(max_sequence_tokens=1024, max_slots=2))
    yield engine
    engine.close()


def allows(engine: Engine, tools: Tools, family: Family, text: str, thinking: bool = False) -> bool:
    source = tool_grammar(tools, family, schema_grammar, thinking)
    assert source is not None
    grammar = Grammar(source, engine.vocabulary)
    try:
        for token in engine.tokenize(text):
            if not grammar.allows(token):
                return False
            grammar.accept(token)
        return any(grammar.allows(token) for token in engine.vocabulary.end_ids)
    finally:
        grammar.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_named_function_must_be_called_once(engine: Engine, family: Family) -> None:
    tools = Tools((ADD, WEATHER), "get_weather")
    assert allows(engine, tools, family, written(family, ("get_weather", GOOD)))
    assert not allows(engine, tools, family, written(family, ("get_weather", BAD)))
    assert not allows(engine, tools, family, written(family, ("add", '{"a": 1}')))
    assert not allows(engine, tools, family, written(family, *[("get_weather", GOOD)] * 2))
    assert not allows(engine, tools, family, "It is warm.")


@pytest.mark.parametrize("family", FAMILIES)
def test_some_function_must_be_called_and_several_may(engine: Engine, family: Family) -> None:
    both = written(family, ("get_weather", GOOD), ("add", '{"a": 1}'))
    assert allows(engine, Tools((ADD, WEATHER), "required"), family, both)
    assert not allows(engine, Tools((ADD, WEATHER), "required", parallel=False), family, both)
    assert allows(
        engine, Tools((ADD, WEATHER), "required", parallel=False), family, written(family, ("add", '{"a": 1}'))
    )
    assert not allows(engine, Tools((ADD, WEATHER), "required"), family, written(family, ("add", '{"a": "1"}')))
    assert not allows(engine, Tools((ADD, WEATHER), "required"), family, "")


@pytest.mark.parametrize("family", FAMILIES)
def test_strict_functions_are_called_by_their_schema_where_the_model_may_choose(engine: Engine, family: Family) -> None:
    tools = Tools((ADD, WEATHER))
    assert allows(engine, tools, family, "It is warm, <b> [1] and so on.")
    assert allows(engine, tools, family, "")
    assert allows(engine, tools, family, written(family, ("get_weather", GOOD), ("add", '{"any": [1]}')))
    assert not allows(engine, tools, family, written(family, ("get_weather", BAD)))
    said = "<|python_tag|>" if family == "llama3" else ""
    assert allows(engine, tools, family, f"Let me < see. {said}" + written(family, ("get_weather", GOOD)))
    assert not allows(engine, tools, family, f"Let me << see. {said}" + written(family, ("get_weather", BAD)))


def test_where_the_model_may_choose_and_nothing_is_strict_there_is_no_grammar() -> None:
    assert tool_grammar(Tools((ADD,)), "hermes", schema_grammar) is None


def test_thinking_that_was_opened_ends_before_the_call(engine: Engine) -> None:
    tools, call = Tools((WEATHER,), "required"), written("hermes", ("get_weather", GOOD))
    assert allows(engine, tools, "hermes", f"Hm, a < b.</</think>\n\n{call}", thinking=True)
    assert not allows(engine, tools, "hermes", call, thinking=True)
    assert not allows(engine, tools, "hermes", "Hm.</think>\n\nIt is warm.", thinking=True)


def test_tools_that_cannot_be_called_are_refused_by_name() -> None:
    no_object = Function("f", "", {"type": "array"})
    with pytest.raises(BadTools, match="'f'"):
        tool_grammar(Tools((no_object,), "required"), "hermes", schema_grammar)
    with pytest.raises(BadTools, match="'g'"):
        tool_grammar(Tools((ADD,), "g"), "hermes", schema_grammar)
    deep: Json = {}
    for _ in range(100):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(InvalidRequest):
        tool_grammar(Tools((Function("f", "", deep),), "f"), "hermes", schema_grammar)


def test_a_hundred_tools_are_no_more_than_the_engine_takes(engine: Engine) -> None:
    many = Tools(tuple(Function(f"weather{n}", "", CITY) for n in range(100)), "required")
    assert allows(engine, many, "hermes", written("hermes", ("weather99", GOOD)))


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_model_calls_as_it_must(engine: Engine, family: Family) -> None:
    tools = Tools((WEATHER,), "required", parallel=False)
    messages = with_tools([{"role": "user", "content": "How warm is it in Paris?"}], tools, False)
    prompt = tuple(engine.render_chat(messages))
    grammar = tool_grammar(tools, family, schema_grammar)
    wanted = GenerationRequest(prompt, max_tokens=120, temperature=0.0, repeat_penalty=1.0, grammar=grammar)
    parser = AnswerParser(["get_weather"], "seed")
    parts = []
    async for item in engine.generate(wanted):
        if isinstance(item, Finish):
            assert item.reason == "stop"
        else:
            parts += parser.feed(item.text)
    parts += parser.finish()
    assert isinstance(parts[0], CallStarted)
    assert all(isinstance(part, CallArguments) for part in parts[1:])
    jsonschema.validate(json.loads("".join(part.json_text for part in parts[1:])), CITY)
