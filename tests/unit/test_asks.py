"""What is asked of a model, in the manner of its chat template, with the bundled model under templates of families.

The templates are small ones in the families' manner; the makers' own are much longer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from deployments.config import Settings, bundled_model_file
from deployments.generation import (
    Ask,
    Ended,
    Function,
    Item,
    Json,
    Piece,
    Refused,
    Sampling,
    Started,
    Tokenized,
    Tools,
)
from deployments.model import asks
from deployments.model.engine import Engine, EngineOptions, Generation, GenerationRequest, PromptTooLong
from deployments.model.engine.chat_template import ChatTemplate
from deployments.model.titles import write_title
from deployments.tool_syntax import AnswerParser, CallArguments, CallStarted

MODEL = next(iter(Settings().llm.models.values()))
QWEN = """{%- for m in messages %}<|im_start|>{{ m.role }}
{%- if loop.first and tools %}
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}
{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""
MISTRAL = """{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for m in messages %}
{%- if m.tool_calls %}[TOOL_CALLS][{% for call in m.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}
{%- endfor %}]</s>
{%- elif m.role == 'tool' %}[TOOL_RESULTS]{"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}
{%- else %}[INST]{{ m.content }}[/INST]{% endif %}{% endfor %}"""
MISTRAL_ARGS = """{%- for m in messages %}{% if m.tool_calls %}{% for call in m.tool_calls %}[TOOL_CALLS]
{{- call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}
{%- else %}[INST]{{ m.content }}{{ tools | tojson }}[/INST]{% endif %}{% endfor %}"""
LLAMA = """{%- for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>
{% if loop.first and tools %}{{ tools | tojson }}{% endif %}
{%- if m.tool_calls %}{% set call = m.tool_calls[0].function -%}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}
{%- endfor %}<|start_header_id|>assistant<|end_header_id|>
"""
THINKER = "{% for m in messages %}{{ m.content }}{{ tools }}{% endfor %}<|im_start|>assistant\n<think>\n"
FAMILIES = {"qwen": QWEN, "mistral": MISTRAL, "mistral-args": MISTRAL_ARGS, "llama": LLAMA}
CALLS = {
    "qwen": '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>',
    "mistral": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Bonn"}',
    "mistral-args": '[TOOL_CALLS]weather[ARGS]{"city": "Bonn"}',
    "llama": '{"name": "weather", "parameters": {"city": "Bonn"}}',
}

SCHEMA: Json = {"type": "object", "properties": {"city": {"enum": ["Bonn", "Rome"]}}, "required": ["city"]}
TOOLS = Tools((Function("weather", "Weather of a city", SCHEMA),), "required", parallel=False)
ASK = Ask(
    messages=({"role": "user", "content": "Weather in Bonn?"},),
    tools=TOOLS,
    sampling=Sampling(max_tokens=60, temperature=0.0),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(bundled_model_file(), EngineOptions(max_sequence_tokens=1024, max_slots=2))
    yield engine
    engine.close()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine's model as one of this family."""
    monkeypatch.setattr(engine, "template", ChatTemplate(FAMILIES[request.param], engine.vocabulary))
    return request.param


@pytest.fixture
def thinker(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A model whose template opens its thinking."""
    monkeypatch.setattr(engine, "template", ChatTemplate(THINKER, engine.vocabulary))
    return engine


async def items(engine: Engine, ask: Ask) -> list[Item]:
    return [item async for batch in asks.generate(engine, MODEL, ask) for item in batch]


async def answer(engine: Engine, ask: Ask) -> str:
    return "".join(item.text for item in await items(engine, ask) if isinstance(item, Piece))


def prompt(engine: Engine, ask: Ask) -> str:
    return "".join(map(engine.vocabulary.text, asks.prompt_of(engine, MODEL, ask)))


async def test_each_family_is_told_of_tools_and_calls_in_its_manner(engine: Engine, family: str) -> None:
    assert '"description": "Weather of a city"' in prompt(engine, ASK)
    said = await answer(engine, ASK)
    assert said.startswith({"qwen": "<tool_call>", "llama": '{"name"'}.get(family, "[TOOL_CALLS]"))
    started, *arguments = AnswerParser(["weather"], "seed").feed(said)
    assert isinstance(started, CallStarted)
    text = "".join(part.json_text for part in arguments if isinstance(part, CallArguments))
    assert json.loads(text)["city"] in ("Bonn", "Rome")


async def test_earlier_calls_and_results_are_written_in_the_manner_of_the_family(engine: Engine, family: str) -> None:
    function = {"name": "weather", "arguments": '{"city": "Bonn"}'}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_0123456789", "function": function}]}
    result = {"role": "tool", "tool_call_id": "call_0123456789", "content": 'say "12"'}
    ask = replace(ASK, messages=(*ASK.messages, called, result))
    written = prompt(engine, ask)
    assert CALLS[family] in written
    assert (r'"say \"12\""' if family == "mistral" else 'say "12"') in written


async def test_thinking_that_the_template_opens_is_told_first(thinker: Engine) -> None:
    plain = replace(ASK, tools=None)
    started, first, *_ = await items(thinker, plain)
    assert isinstance(started, Started)
    assert first == Piece(0, "<think>")
    # Of an answer that goes on elsewhere it was told before, and one that follows a format has no thinking.
    formats = ({"json_schema": SCHEMA}, {"grammar": 'root ::= "yes"'})
    for changes in ({"produced_token_ids": (28, 29)}, *formats):
        ask = replace(plain, **changes)
        _, first, *_ = await items(thinker, ask)
        assert isinstance(first, Piece)
        assert first.token_ids


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (THINKER, "assistant\n<think>\n\n</think>\n\n"),
        (THINKER.removesuffix("\n") + "{{ '\\n' }}", "assistant\n<think>\n\n</think>\n\n"),
        (THINKER.removesuffix("\n<think>\n") + "{# </think> #}", "assistant<think>\n\n</think>\n\n"),
        (QWEN, "assistant"),
    ],
    ids=["opens thinking", "opens a line of thinking", "knows thinking", "knows none"],
)
async def test_title_is_asked_for_without_thinking(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, template: str, end: str
) -> None:
    monkeypatch.setattr(engine, "template", ChatTemplate(template, engine.vocabulary))
    asked: list[GenerationRequest] = []

    def generate(wanted: GenerationRequest) -> Generation:
        asked.append(wanted)
        return Engine.generate(engine, wanted)

    monkeypatch.setattr(engine, "generate", generate)
    await write_title(engine, [{"role": "user", "content": "Why is the sky blue?"}], "")
    assert "".join(map(engine.vocabulary.text, asked[0].prompt_token_ids)).endswith(end)


async def test_a_model_that_thinks_may_do_so_before_a_call_that_it_must_make(thinker: Engine) -> None:
    close = thinker.tokenize("Hm.</think>")
    said = await answer(thinker, replace(ASK, produced_token_ids=tuple(close)))
    parser = AnswerParser(["weather"], "seed")
    parts = parser.feed("<think>Hm.</think>" + said)
    assert [type(part) for part in parts[1:]] == [CallStarted, CallArguments]


async def test_the_stop_string_that_ended_an_answer_is_told(engine: Engine) -> None:
    wanted: dict[str, Any] = {"tools": None, "json_schema": {"enum": ["alpha beta"]}}
    ask = replace(ASK, **wanted, sampling=replace(ASK.sampling, stop=("beta",)))
    *_, end = await items(engine, ask)
    assert isinstance(end, Ended)
    assert (end.reason, end.stop_string) == ("stop", "beta")


def test_what_does_not_fit_loses_its_oldest_turns_but_not_its_instructions(engine: Engine) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    instructions: Json = {"role": "system", "content": "Be brief."}
    oldest: list[Json] = [
        {"role": "user", "content": "old " * 400},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
        {"role": "assistant", "content": "old " * 300},
    ]
    latest: list[Json] = [{"role": "user", "content": "new " * 400}, {"role": "assistant", "content": "Yes."}]
    latest.append({"role": "user", "content": "And?"})
    whole = Ask(messages=(instructions, *oldest, *latest), sampling=Sampling(max_tokens=100))
    with pytest.raises(PromptTooLong):
        engine.validate(asks.prepare(engine, MODEL, whole))
    kept = asks.prepare(engine, MODEL, replace(whole, trims=True))
    engine.validate(kept)
    assert kept.prompt_token_ids == tuple(
        asks.prompt_of(engine, MODEL, replace(whole, messages=(instructions, *latest)))
    )


def test_the_engine_gets_a_schema_as_the_grammar_that_it_is(engine: Engine) -> None:
    request = asks.prepare(engine, MODEL, replace(ASK, tools=None, json_schema={"enum": ["alpha beta"]}))
    assert request.json_schema is None
    assert request.grammar
    assert "alpha beta" in request.grammar


async def test_many_token_ids_are_looked_up_aside_from_the_event_loop(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    check = engine.vocabulary.check

    def noted(tokens: Sequence[int], param: str) -> None:
        threads.append(threading.get_ident())
        check(tokens, param)

    monkeypatch.setattr(engine.vocabulary, "check", noted)
    ids = (1, 2, 3) * 1000
    made = await asks.tokenized(engine, MODEL, Ask(token_ids=ids))
    assert isinstance(made, Tokenized)
    assert (made.token_ids, len(made.pieces)) == (ids, len(ids))
    refused = await asks.tokenized(engine, MODEL, Ask(token_ids=(10**6,)))
    assert isinstance(refused, Refused)
    assert refused.param == "token_ids"
    assert threading.get_ident() not in threads
    assert len(threads) == 2
