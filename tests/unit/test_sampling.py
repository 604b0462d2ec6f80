"""Sampling as a caller of the engine sees it, with the real bundled model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest, InvalidRequest, TokenLogprob
from deployments.model.engine.grammar import Grammar, schema_grammar
from deployments.model.engine.sampler import Sampler

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PLACES = {
    "type": "object",
    "properties": {
        "place": {"type": "object", "properties": {"x": {"type": "integer"}}},
        "home": {"$ref": "#/$defs/place"},
    },
    "required": ["place", "home"],
    "$defs": {"place": {"type": "object", "properties": {"y": {"type": "integer"}}, "required": ["y"]}},
}
NESTED = {
    "type": "array",
    "maxItems": 900,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 200},
            "words": {
                "type": "array",
                "items": {"type": "string", "pattern": "^.{1,20}( [a-z]{0,9}){0,9}$"},
                "maxItems": 99,
            },
            "when": {"type": "string", "format": "date-time"},
            "kind": {"anyOf": [{"enum": ["a", "a,b"]}, {"type": "null"}]},
        },
        "required": ["name", "words"],
    },
}
LIST = {
    "type": "object",
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    "$ref": "#/$defs/node",
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(bundled_model_file(), EngineOptions(max_sequence_tokens=512, max_slots=4))
    yield engine
    engine.check()
    engine.close()


def request(engine: Engine, text: str = "Tell me about the sea.", **changes: Any) -> GenerationRequest:
    prompt = tuple(engine.render_chat([{"role": "user", "content": text}]))
    values: dict[str, Any] = {"max_tokens": 24, "temperature": 0.0, "repeat_penalty": 1.0}
    return GenerationRequest(prompt, **(values | changes))


async def run(engine: Engine, wanted: GenerationRequest) -> tuple[str, list[int], list[TokenLogprob], Finish]:
    text, tokens, logprobs = "", [], []
    async for item in engine.generate(wanted):
        if isinstance(item, Finish):
            return text, tokens, logprobs, item
        text += item.text
        tokens += item.token_ids
        logprobs += item.logprobs
    raise AssertionError("no Finish")


def sampler(engine: Engine, **changes: Any) -> Sampler:
    values: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0}
    return Sampler(GenerationRequest((1,), **(values | changes)), engine.vocabulary)


def flat(engine: Engine, **values: float) -> np.ndarray:
    """Logits of 0 but for these tokens, named t<id>."""
    logits = np.zeros(engine.vocabulary.size, np.float32)
    for name, value in values.items():
        logits[int(name[1:])] = value
    return logits


def test_presence_penalty_counts_once_and_frequency_penalty_each_time(engine: Engine) -> None:
    logits = flat(engine, t100=2.0, t200=1.2)
    assert sampler(engine, presence_penalty=0.5, produced_token_ids=(100, 100, 100)).sample(logits) == 100
    assert sampler(engine, frequency_penalty=0.5, produced_token_ids=(100, 100, 100)).sample(logits) == 200


def test_repeat_penalty_sees_what_was_just_sampled(engine: Engine) -> None:
    one = sampler(engine, repeat_penalty=2.0)
    logits = flat(engine, t100=2.0, t200=1.5)
    assert [one.sample(logits) for _ in range(2)] == [100, 200]


def test_logit_bias_forces_and_forbids(engine: Engine) -> None:
    logits = flat(engine, t100=5.0)
    assert sampler(engine, logit_bias={300: 100}).sample(logits) == 300
    assert sampler(engine, logit_bias={100: -100}).sample(logits) != 100


def test_resumed_answer_draws_what_it_would_have_drawn(engine: Engine) -> None:
    logits = np.random.default_rng(3).standard_normal(engine.vocabulary.size).astype(np.float32)
    settings: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 11}
    whole = sampler(engine, **settings)
    tokens = [whole.sample(logits) for _ in range(20)]
    rest = sampler(engine, **settings, produced_token_ids=tuple(tokens[:7]))
    assert [rest.sample(logits) for _ in range(13)] == tokens[7:]
    assert sampler(engine, **(settings | {"seed": 12})).sample(logits) != tokens[0]


async def test_log_probabilities_are_those_of_the_model(engine: Engine) -> None:
    _, tokens, logprobs, _ = await run(engine, request(engine, top_logprobs=5))
    assert [item.token_id for item in logprobs] == tokens
    for item in logprobs:
        assert item.top[0] == (item.token_id, pytest.approx(item.logprob)), "greedy takes the likeliest"
        assert [value for _, value in item.top] == sorted((value for _, value in item.top), reverse=True)
        assert sum(math.exp(value) for _, value in item.top) <= 1.0001
    _, _, without, _ = await run(engine, request(engine))
    assert without == []


async def test_ignore_eos_goes_on_to_the_last_token(engine: Engine) -> None:
    _, tokens, _, finish = await run(engine, request(engine, "Say yes.", max_tokens=60, ignore_eos=True))
    assert (finish.reason, finish.completion_tokens) == ("length", 60)
    assert not engine.vocabulary.end_ids & set(tokens)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_answer_follows_the_grammar(engine: Engine, temperature: float) -> None:
    wanted = request(engine, grammar='root ::= "<" [0-9]{3,5} ">"', temperature=temperature, seed=4)
    text, _, _, finish = await run(engine, wanted)
    assert re.fullmatch(r"<\d{3,5}>", text)
    assert finish.reason == "stop"


async def test_answer_follows_the_schema(engine: Engine) -> None:
    text, _, _, finish = await run(engine, request(engine, "Who are you?", json_schema=PERSON, max_tokens=80))
    value = json.loads(text)
    assert finish.reason == "stop"
    assert isinstance(value["name"], str)
    assert isinstance(value["age"], int)
    text, _, _, _ = await run(engine, request(engine, "A colour as JSON.", json_schema={"type": "object"}, seed=1))
    assert text.startswith("{")


@pytest.mark.parametrize(
    ("schema", "allowed", "forbidden"),
    [
        ({"type": "string"}, r'"a\nb"', '"a\nb"'),
        ({"enum": ['say "hi"', "a\\b", "é"]}, r'"say \"hi\""', '"say'),
        ({"enum": ['say "hi"', "a\\b", "é"]}, r'"a\\b"', '"a"'),
        ({"type": "string", "minLength": 2, "maxLength": 200}, f'"{"a" * 200}"', f'"{"a" * 201}"'),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 100}, "[1, 2]", "[]"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "[]", "[1, 2, 3]"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "9", "10"),
        ({"type": "integer", "exclusiveMinimum": -4.0, "maximum": 250.5}, "-3", "-4"),
        ({"type": "integer", "minimum": 1900}, "20000", "1899"),
        ({"type": ["integer", "null"], "exclusiveMaximum": 300}, "299", "300"),
        ({"type": ["string", "null"]}, "null", "1"),
        ({"type": ["string", "null"], "enum": ["a", None]}, "null", '"b"'),
        ({"type": "object", "properties": {"any": {"title": "Any"}}}, '{"any": [1]}', '{"other": 1}'),
        (PLACES, '{"place": {"x": 1}, "home": {"y": 2}}', '{"place": {"x": 1}, "home": {"x": 2}}'),
        (LIST, '{"next": {"next": {}}}', '{"next": 1}'),
        (
            NESTED,
            '[{"name": "A", "words": ["x ab cd", "y"], "kind": "a,b"}, {"name": "B", "words": []}]',
            '[{"name": 1}]',
        ),
        ({"type": "string", "pattern": "^a.{0,5}$"}, '"abc"', '"a"b"'),
        ({"type": "string", "pattern": "^([A-Za-z]+ ?){1,50}$"}, '"To be or not to be"', '"a  b"'),
    ],
)
def test_what_a_schema_allows(engine: Engine, schema: dict[str, Any], allowed: str, forbidden: str) -> None:
    def follows(text: str) -> bool:
        grammar = Grammar(schema_grammar(schema), engine.vocabulary)
        try:
            for token in engine.tokenize(text):
                if not grammar.allows(token):
                    return False
                grammar.accept(token)
            return any(grammar.allows(token) for token in engine.vocabulary.end_ids)
        finally:
            grammar.close()

    assert follows(allowed)
    assert not follows(forbidden)


async def test_resumed_answer_goes_on_within_the_grammar(engine: Engine) -> None:
    wanted: dict[str, Any] = {"grammar": 'root ::= "one two three four five"', "max_tokens": 20}
    whole, tokens, _, _ = await run(engine, request(engine, **wanted))
    assert whole == "one two three four five"
    rest, _, _, finish = await run(engine, request(engine, **wanted, produced_token_ids=tuple(tokens[:2])))
    shown = b"".join(engine.vocabulary.pieces[token] for token in tokens[:2]).decode()
    assert (shown + rest, finish.reason) == (whole, "stop")


async def test_an_answer_whose_grammar_takes_too_long_ends_and_the_others_go_on(engine: Engine) -> None:
    # After each a there are twice as many ways to read what was written.
    [a] = engine.vocabulary.tokenize("a", special=False)
    exploding = request(
        engine,
        grammar='root ::= "a" root "b" | "a" root "c" | "a"',
        logit_bias={a: 100.0},
        max_tokens=100,
    )
    others = [request(engine, max_tokens=60), request(engine, "Who are you?", json_schema=PERSON, max_tokens=80)]
    ended, *finished = await asyncio.gather(*(run(engine, wanted) for wanted in (exploding, *others)))
    assert ended[3].reason == "error"
    assert "grammar" in ended[3].message
    assert "repeat less" in ended[3].message
    assert 0 < ended[3].completion_tokens < 40
    assert [finish.reason for _, _, _, finish in finished] == ["length", "stop"]
    assert (await run(engine, request(engine, json_schema=PERSON, max_tokens=80)))[3].reason == "stop"
    with pytest.raises(InvalidRequest) as refused:
        engine.generate(dataclasses.replace(exploding, produced_token_ids=(a,) * (ended[3].completion_tokens + 2)))
    assert "too long" in str(refused.value)


async def test_grammar_that_is_at_its_end_ends_even_an_answer_that_ignores_it(engine: Engine) -> None:
    text, _, _, finish = await run(engine, request(engine, grammar='root ::= "ab"', ignore_eos=True))
    assert (text, finish.reason) == ("ab", "stop")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": 'start ::= "a"'}, "grammar"),
        ({"grammar": 'root ::= root "a"'}, "grammar"),
        ({"grammar": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000}, "grammar"),
        ({"grammar": 'root ::= "a"{5000}'}, "grammar"),
        ({"grammar": 'root ::= "b" # "\n "a"{ 0000000003 , 1 } # "'}, "grammar"),
        ({"json_schema": {"type": "string", "minLength": 3, "maxLength": 1}}, "grammar"),
        ({"json_schema": {"type": "array", "items": {}, "minItems": 3, "maxItems": 1}}, "grammar"),
        ({"grammar": 'root ::= "a"', "produced_token_ids": (5000,)}, "produced_token_ids"),
        ({"json_schema": {"type": "array", "minItems": 10**9}}, "json_schema"),
        ({"json_schema": {"type": "object", "properties": {"a": "no schema"}}}, "json_schema"),
        ({"json_schema": {"$ref": "https://example.org/schema"}}, "json_schema"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"json_schema": {"type": "string", "pattern": "^((a|b|aa){0,30}){0,30}$"}}, "json_schema"),
        ({"json_schema": {"items": {"type": "string", "pattern": "^((a|aa){1,20}-?){0,20}$"}}}, "json_schema"),
        ({"grammar": 'root ::= (("a"{0,2000}){0,2000}){0,2000}'}, "grammar"),
        ({"grammar": 'root ::= x{0,200}\nx ::= ("-"? y){1,200} # "b"\ny ::= [a-z]+'}, "grammar"),
        ({"logit_bias": {10**6: 1.0}}, "logit_bias"),
    ],
)
async def test_what_cannot_be_used_is_told_and_the_engine_lives_on(
    engine: Engine, changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        engine.generate(request(engine, **changes))
    assert refused.value.param == param
    assert (await run(engine, request(engine, max_tokens=2)))[3].completion_tokens == 2


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 1.1),
        ("min_p", -1.0),
        ("typical_p", 2.0),
        ("repeat_penalty", 0.0),
        ("presence_penalty", 3.0),
        ("frequency_penalty", -3.0),
        ("seed", -1),
        ("top_logprobs", 21),
        ("stop", ("x",) * 17),
        ("logit_bias", {5: 101.0}),
    ],
)
def test_value_out_of_its_range_is_refused_by_name(param: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        GenerationRequest((1,), **{param: value})  # pyright: ignore[reportArgumentType]
    assert refused.value.param == param


def test_grammar_and_schema_together_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        GenerationRequest((1,), grammar='root ::= "a"', json_schema={})
