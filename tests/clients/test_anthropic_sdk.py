"""Anthropic's own package, unchanged, against the real product."""

from __future__ import annotations

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from tests.clients.conftest import MODEL, WEATHER
from tests.support.product import Product

QUESTION: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: ToolParam = {
    "name": "weather",
    "description": "The weather of the coming days",
    "input_schema": {**WEATHER, "type": "object"},
}


@pytest.fixture
def client(product: Product, api_key: str) -> Anthropic:
    return Anthropic(base_url=product.url, api_key=api_key, max_retries=0)


def test_answers(client: Anthropic) -> None:
    made = client.messages.create(model=MODEL, max_tokens=24, extra_body={"temperature": 0}, messages=QUESTION)
    [block] = made.content
    assert block.type == "text"
    assert block.text.strip()
    assert made.stop_reason in ("end_turn", "max_tokens")
    counted = client.messages.count_tokens(model=MODEL, messages=QUESTION)
    assert counted.input_tokens == made.usage.input_tokens + (made.usage.cache_read_input_tokens or 0)


async def test_streams(product: Product, api_key: str) -> None:
    async with (
        AsyncAnthropic(base_url=product.url, api_key=api_key, max_retries=0) as client,
        client.messages.stream(
            model=MODEL, max_tokens=24, extra_body={"temperature": 0}, messages=QUESTION, system="Be short."
        ) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text.strip()
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert final.usage.output_tokens > 0


def test_uses_a_tool(client: Anthropic) -> None:
    asked: list[MessageParam] = [{"role": "user", "content": "How will the weather be in Oslo?"}]
    made = client.messages.create(
        model=MODEL, max_tokens=200, messages=asked, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}
    )
    assert made.stop_reason == "tool_use"
    used = made.content[-1]
    assert used.type == "tool_use"
    assert isinstance(used.input, dict)
    assert set(used.input) == {"city", "days"}
    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "Snow, -3 °C"}],
    }
    said: MessageParam = {"role": "assistant", "content": made.content}
    after = client.messages.create(model=MODEL, max_tokens=24, messages=[*asked, said, result], tools=[TOOL])
    assert after.content


def test_errors_are_those_that_the_package_knows(client: Anthropic, product: Product) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        Anthropic(base_url=product.url, api_key="rgpt_wrong", max_retries=0).messages.create(
            model=MODEL, max_tokens=8, messages=QUESTION
        )
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude-none", max_tokens=8, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, max_tokens=8, messages=QUESTION, extra_body={"temperature": 9})
