"""LiteLLM as a client of the real product."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

from tests.clients.conftest import MODEL

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def options(base_url: str, api_key: str) -> dict[str, Any]:
    return {
        "model": f"openai/{MODEL}",
        "api_base": base_url,
        "api_key": api_key,
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 24,
        "num_retries": 0,
    }


def test_answers(options: dict[str, Any]) -> None:
    made: Any = litellm.completion(**options)
    assert made.choices[0].message.content.strip()
    assert made.usage.prompt_tokens > 0


async def test_streams(options: dict[str, Any]) -> None:
    stream: Any = await litellm.acompletion(**options, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text.strip()


def test_errors_are_those_that_it_knows(options: dict[str, Any]) -> None:
    with pytest.raises(litellm.exceptions.AuthenticationError):
        litellm.completion(**options | {"api_key": "rgpt_wrong"})
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.completion(**options | {"model": "openai/none"})
