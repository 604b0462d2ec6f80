"""Answers read as text, thinking and calls; and what is put into prompts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.generation import Function, Json, Tools
from deployments.tool_syntax import (
    AnswerParser,
    CallArguments,
    CallStarted,
    Part,
    ReasoningPart,
    TextPart,
    family_of,
    opens_thinking,
    with_tools,
    without_thinking,
)

NAMES = ("weather", "add")
# Small templates in the manner of the families; the makers' own are much longer.
QWEN = "{% if tools %}<tools>{{ tools | tojson }}</tools><tool_call>{% endif %}{{ messages[0].content }}"
MISTRAL = "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}[TOOL_CALLS]{{ messages[0].content }}"
MISTRAL_ARGS = MISTRAL + "[ARGS]"
LLAMA = "{{ tools }}<|start_header_id|>user<|end_header_id|>{{ messages[0].content }}"


def read(text: str, names: tuple[str, ...] = NAMES, cuts: tuple[int, ...] = (), parallel: bool = True) -> list[Part]:
    """The answer's parts, each as long as it can be, when it comes in pieces that end at `cuts`."""
    parser = AnswerParser(names, "seed", parallel)
    ends = [*sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    made: list[Part] = []
    for begin, end in zip([0, *ends], ends, strict=False):
        made += parser.feed(text[begin:end])
    return joined(made + parser.finish())


def joined(parts: list[Part]) -> list[Part]:
    made: list[Part] = []
    for part in parts:
        match made[-1] if made else None, part:
            case TextPart(before), TextPart(more):
                made[-1] = TextPart(before + more)
            case ReasoningPart(before), ReasoningPart(more):
                made[-1] = ReasoningPart(before + more)
            case CallArguments(first, before), CallArguments(second, more) if first == second:
                made[-1] = CallArguments(first, before + more)
            case _:
                made.append(part)
    return made


def shape(parts: list[Part]) -> list[object]:
    """Without ids."""
    return [part.name if isinstance(part, CallStarted) else part for part in parts]


def call(index: int, name: str, arguments: str) -> list[object]:
    return [name, CallArguments(index, arguments)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello there.\n", [TextPart("Hello there.\n")]),
        (
            'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "a } \\" b"}}\n</tool_call>',
            [TextPart("Let me see."), *call(0, "weather", '{"city": "a } \\" b"}')],
        ),
        (
            '<tool_call>{"arguments": {"a": [1, {}]}, "name": "add"}</tool_call>\n'
            '<tool_call>{"name": "weather"}</tool_call>\nDone.',
            [*call(0, "add", '{"a": [1, {}]}'), *call(1, "weather", "{}"), TextPart("Done.")],
        ),
        (
            '<tool_call>{"name": "add", "arguments": {"a": 1}}<tool_call>{"name": "add", "arguments": {}}',
            [*call(0, "add", '{"a": 1}'), *call(1, "add", "{}")],
        ),
        (
            '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "x"}, {"name": "weather", "arguments": {}}]',
            [*call(0, "add", '{"a": 1}'), *call(1, "weather", "{}")],
        ),
        (
            'Yes.[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]weather[CALL_ID]x1[ARGS]{"b": 2}',
            [TextPart("Yes."), *call(0, "add", '{"a": 1}'), *call(1, "weather", '{"b": 2}')],
        ),
        (
            '<|python_tag|>{"name": "add", "parameters": {"a": 1}}; {"name": "weather", "parameters": {}}',
            [*call(0, "add", '{"a": 1}'), *call(1, "weather", "{}")],
        ),
        (
            ' {"type": "function", "name": "add", "parameters": {"a": 1}};{"name": "add", "parameters": {}}',
            [*call(0, "add", '{"a": 1}'), *call(1, "add", "{}")],
        ),
        ('[{"name": "add", "arguments": "{\\"a\\": 1}"}]', call(0, "add", '{"a": 1}')),
        (
            '<think>\nHm. <tool_call> no\n\n</think>\n\n{"name": "add", "arguments": {}}',
            [ReasoningPart("Hm. <tool_call> no"), *call(0, "add", "{}")],
        ),
        ("<think>\n\n</think>\n\nYes.", [TextPart("Yes.")]),
        ("<think>cut off ", [ReasoningPart("cut off")]),
    ],
)
def test_what_models_write_is_told_apart(text: str, parts: list[object]) -> None:
    assert shape(read(text)) == parts


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call> and so on',
        '<tool_call>{"name": "add", arguments: {}}</tool_call>',
        '<tool_call>{"name": "add"',
        '<tool_call>{"name": "add", "arguments": 5}</tool_call>',
        '{"name": "Ada", "age": 36}',
        '{"name": "add"}',
        '{"answer": 42}',
        '["a", "b"]',
        "[TOOL_CALLS]unknown[ARGS]{}",
        "<|python_tag|>print('hi')",
        'In the middle {"name": "add", "arguments": {}} it\'s text, and so is <think>this</think>',
        "a < b, <tool_cal",
        "  \n",
    ],
)
def test_what_is_no_call_is_text_and_nothing_of_it_is_lost(text: str) -> None:
    assert read(text) == [TextPart(text)]


def test_a_call_cut_off_within_its_arguments_is_given_as_far_as_it_goes() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": "xy'
    assert shape(read(text)) == call(0, "add", '{"a": "xy')


def test_without_tools_calls_are_text_and_thinking_is_thinking() -> None:
    text = '<tool_call>{"name": "add", "arguments": {}}</tool_call> [TOOL_CALLS]'
    assert read(f"<think>Hm.</think>\n{text}", names=()) == [ReasoningPart("Hm."), TextPart(text)]
    assert read("[1, 2]<", names=()) == [TextPart("[1, 2]<")]


def test_only_the_first_call_is_given_where_calls_must_not_be_parallel() -> None:
    text = '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {"a": 2}}]'
    assert shape(read(text, parallel=False)) == call(0, "add", '{"a": 1}')


def test_text_and_arguments_come_as_soon_as_they_are_certain() -> None:
    parser = AnswerParser(NAMES, "seed")
    assert parser.feed("Wait") == [TextPart("Wait")]
    assert parser.feed(" a <to") == [TextPart(" a")]
    assert parser.feed('ol_call>{"name": "add", "arg') == []
    started, arguments = parser.feed('uments": {"a": 1')
    assert isinstance(started, CallStarted)
    assert arguments == CallArguments(0, '{"a": 1')
    assert parser.feed("2}") == [CallArguments(0, "2}")]
    assert parser.feed("}</tool_call>") == []
    assert parser.finish() == []


def test_ids_follow_from_the_seed_and_the_number_of_the_call() -> None:
    text = '[{"name": "add", "arguments": {}}, {"name": "add", "arguments": {}}]'
    ids = [part.id for part in read(text) if isinstance(part, CallStarted)]
    assert ids == [part.id for part in read(text, cuts=(3, 40)) if isinstance(part, CallStarted)]
    assert len(set(ids)) == 2
    other = AnswerParser(NAMES, "other")
    assert not set(ids) & {part.id for part in other.feed(text) if isinstance(part, CallStarted)}
    assert all(len(made) == len("call_") + 24 for made in ids)


WORDS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[CALL_ID]",
            "<|python_tag|>",
            "<think>",
            "</think>",
        ),
        *(
            '{"name": "add", "arguments": ',
            '{"name": "weather", "parameters": {"city": "Oslo"}}',
            '{"a": 1}',
            '"',
            "\\",
        ),
        *("{", "}", "[", "]", "<", ",", ";", "add", "text", " ", "\n", '"name"', ":", "é", "null", "1.5e3", "</", "[T"),
    ]
)


@settings(max_examples=500, deadline=None)
@given(words=st.lists(WORDS, max_size=25), cuts=st.lists(st.integers(1, 300), max_size=20), parallel=st.booleans())
def test_an_answer_means_the_same_however_it_is_cut(words: list[str], cuts: list[int], parallel: bool) -> None:
    text = "".join(words)
    whole = read(text, parallel=parallel)
    assert read(text, cuts=tuple(cuts), parallel=parallel) == whole
    assert read(text, cuts=tuple(range(1, len(text))), parallel=parallel) == whole


@settings(max_examples=500, deadline=None)
@given(words=st.lists(WORDS, max_size=25))
def test_text_is_a_part_of_what_was_written_in_its_order(words: list[str]) -> None:
    text = "".join(words)
    place = 0
    for part in read(text):
        shown = part.json_text if isinstance(part, CallArguments) else getattr(part, "text", "")
        if shown == "{}" and isinstance(part, CallArguments):
            continue  # what stands for no arguments need not be written
        place = text.find(shown, place)
        assert place >= 0
        place += len(shown)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.just('</tool_call> } "'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text(max_size=5), VALUES, max_size=4)),
        min_size=1,
        max_size=3,
    ),
    form=st.sampled_from(["hermes", "mistral", "mistral-args", "llama3"]),
    cuts=st.lists(st.integers(1, 400), max_size=20),
)
def test_calls_come_out_as_the_model_wrote_them(
    calls: list[tuple[str, dict[str, Any]]], form: str, cuts: list[int]
) -> None:
    texts = [json.dumps(arguments, ensure_ascii=False) for _, arguments in calls]
    objects = [
        json.dumps({"name": name})[:-1] + f', "{"parameters" if form == "llama3" else "arguments"}": {text}}}'
        for (name, _), text in zip(calls, texts, strict=True)
    ]
    answer = {
        "hermes": "\n".join(f"<tool_call>\n{made}\n</tool_call>" for made in objects),
        "mistral": f"[TOOL_CALLS][{', '.join(objects)}]",
        "mistral-args": "".join(
            f"[TOOL_CALLS]{name}[ARGS]{text}" for (name, _), text in zip(calls, texts, strict=True)
        ),
        "llama3": "; ".join(objects),
    }[form]
    wanted = [part for index, (name, _) in enumerate(calls) for part in call(index, name, texts[index])]
    assert shape(read(answer, cuts=tuple(cuts))) == wanted


@pytest.mark.parametrize(
    ("template", "family"),
    [
        (QWEN, "hermes"),
        (MISTRAL, "mistral"),
        (MISTRAL_ARGS, "mistral-args"),
        (LLAMA, "llama3"),
        ("{{ messages }}<|start_header_id|>", "hermes"),  # it is told of tools as Hermes is
        (None, "hermes"),
    ],
)
def test_the_family_is_known_by_the_template(template: str | None, family: str) -> None:
    assert family_of(template) == family


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("<think>Hm.</think>\n\nYes.", "Yes."),
        ("\n<think>\n</think>Yes.", "Yes."),
        ("<think>cut off", ""),
        (" In the middle <think>it stays</think> ", " In the middle <think>it stays</think> "),
    ],
)
def test_an_answer_is_told_without_its_thinking(answer: str, said: str) -> None:
    assert without_thinking(answer) == said


def test_thinking_that_the_prompt_opens_is_noticed() -> None:
    assert opens_thinking("<|im_start|>assistant\n<think>\n")
    assert not opens_thinking("<think>\n\n</think>\n\n")


TOOLS = Tools((Function("add", "Adds {two} numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}}),))
CALLED: list[Json] = [
    {"role": "user", "content": "1+1?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    {"role": "user", "content": "Sure?"},
]


def test_a_template_that_knows_no_tools_gets_them_as_text() -> None:
    system, asked, answered, result = with_tools(CALLED, TOOLS, template_supports_tools=False)
    assert system["role"] == "system"
    assert '"name": "add"' in system["content"]
    assert '{"name": <function name>, "arguments": <object of arguments>}' in system["content"]
    assert "Adds {two} numbers." in system["content"]
    assert asked == CALLED[0]
    assert shape(read(answered["content"])) == call(0, "add", '{"a": 1}')
    # User and assistant alternate.
    assert result == {"role": "user", "content": "<tool_response>\n2\n</tool_response>\nSure?"}


def test_tools_are_told_after_the_instructions_that_are_there() -> None:
    system, *_ = with_tools([{"role": "system", "content": "Be brief."}], TOOLS, template_supports_tools=False)
    assert system["content"].startswith("Be brief.\n\n")
    assert '"add"' in system["content"]


def test_a_template_that_knows_tools_gets_arguments_as_objects() -> None:
    _, answered, result, _ = with_tools(CALLED, TOOLS, template_supports_tools=True)
    [made] = answered["tool_calls"]
    assert made["function"] == {"name": "add", "arguments": {"a": 1}}
    assert answered["content"] == ""
    assert result["name"] == "add"
    # Mistral's templates take nine letters or digits.
    assert made["id"] == result["tool_call_id"]
    assert len(made["id"]) == 9
    assert CALLED[1]["tool_calls"][0]["id"] == "call_1"


@pytest.mark.parametrize("arguments", ["{'a': 1}", '{"a": ' * 5000 + "1" + "}" * 5000])
def test_arguments_that_no_template_could_write_stay_text(arguments: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    [answered] = with_tools([{"role": "assistant", "content": "", "tool_calls": [call]}], TOOLS, True)
    assert answered["tool_calls"][0]["function"]["arguments"] == arguments
