"""OpenAI's own package, unchanged, against the real product."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from pydantic import BaseModel, Field

from tests.clients.conftest import MODEL, WEATHER

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of the coming days", "parameters": WEATHER},
}


class City(BaseModel):
    """What is asked for by `parse`."""

    name: str = Field(max_length=20)
    inhabitants: int = Field(ge=1, le=99_999_999)


@pytest.fixture
def client(base_url: str, api_key: str) -> OpenAI:
    return OpenAI(base_url=base_url, api_key=api_key, max_retries=0)


def test_answers(client: OpenAI) -> None:
    made = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    assert (made.choices[0].message.content or "").strip()
    assert made.choices[0].finish_reason in ("stop", "length")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_streams_with_usage_at_the_end(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip()
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_streams_to_many_at_once(base_url: str, api_key: str) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:

        async def read() -> str:
            stream = await client.chat.completions.create(
                model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert all(text.strip() for text in await asyncio.gather(*(read() for _ in range(4))))


def test_several_answers_with_log_probabilities(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model=MODEL, messages=QUESTION, n=3, seed=7, max_tokens=8, logprobs=True, top_logprobs=2, stop="\n"
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    for choice in made.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content
        assert all(item.logprob <= 0 and len(item.top_logprobs) == 2 for item in choice.logprobs.content)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_a_tool_and_reads_what_it_gave(client: OpenAI, stream: bool) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How will the weather be in Oslo?"}]
    options: dict[str, Any] = {"model": MODEL, "tools": [TOOL], "max_tokens": 200, "seed": 1}
    if stream:
        with client.chat.completions.stream(messages=messages, tool_choice="required", **options) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = (
            client.chat.completions.create(messages=messages, tool_choice="required", **options).choices[0].message
        )
    assert message.tool_calls
    call = message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "days"}
    assert 1 <= arguments["days"] <= 9
    result: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "Snow, -3 °C"}
    said: Any = message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    after = client.chat.completions.create(messages=[*messages, said, result], **options, tool_choice="none")
    assert after.choices[0].message.content


def test_parses_an_answer_into_a_model(client: OpenAI) -> None:
    made = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe Paris."}],
        response_format=City,
        temperature=0,
        max_tokens=200,
    )
    parsed = made.choices[0].message.parsed
    assert isinstance(parsed, City)


def test_completes_a_raw_prompt(client: OpenAI) -> None:
    made = client.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=6, temperature=0, echo=True)
    assert made.choices[0].text.startswith("One, two, three,")


def test_lists_models(client: OpenAI) -> None:
    models = client.models.list().data
    assert MODEL in [model.id for model in models]
    assert client.models.retrieve(MODEL).object == "model"


def test_background_response_is_resumed_where_it_was_left(client: OpenAI) -> None:
    stream = client.responses.create(
        model=MODEL, input="Count from one to twenty in words.", background=True, stream=True, max_output_tokens=60
    )
    seen: list[Any] = []
    for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            break
    stream.close()
    response_id = seen[0].response.id
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number))
    events = [*seen, *rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = client.responses.retrieve(response_id)
    assert final.status in ("completed", "incomplete")
    assert final.output_text == text


def test_response_is_parsed_and_continued(client: OpenAI) -> None:
    parsed = client.responses.parse(
        model=MODEL, input="Describe Paris.", text_format=City, temperature=0, max_output_tokens=200
    )
    assert isinstance(parsed.output_parsed, City)
    following = client.responses.create(
        model=MODEL, input="Say it in one word.", previous_response_id=parsed.id, max_output_tokens=8
    )
    assert following.previous_response_id == parsed.id
    assert following.output_text


def test_stored_chat_is_kept_until_it_is_deleted(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=8, store=True, metadata={"topic": "cities"}
    )
    kept = client.chat.completions.retrieve(made.id)
    assert kept.choices[0].message.content == made.choices[0].message.content
    assert made.id in [each.id for each in client.chat.completions.list(limit=100)]
    assert client.chat.completions.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def test_errors_are_those_that_the_package_knows(client: OpenAI, base_url: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=base_url, api_key="rgpt_wrong", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-none", messages=QUESTION)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert MODEL in missing.value.message
    with pytest.raises(openai.BadRequestError) as invalid:
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=9)
    assert invalid.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as pooled:
        client.embeddings.create(model=MODEL, input="A text")
    assert "embedding" in pooled.value.message
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}])
    assert long.value.code == "context_length_exceeded"
