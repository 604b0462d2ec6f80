"""LangChain's ChatOpenAI against the real product."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.clients.conftest import MODEL


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    inhabitants: int = Field(ge=1, le=99_999_999)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"Snow in {city}"


@pytest.fixture
def chat(base_url: str, api_key: str) -> Any:
    def made(**options: Any) -> ChatOpenAI:
        settings: dict[str, Any] = {"temperature": 0, "max_completion_tokens": 120, "max_retries": 0} | options
        return ChatOpenAI(model=MODEL, base_url=base_url, api_key=SecretStr(api_key), **settings)

    return made


def test_answers_and_streams(chat: Any) -> None:
    made = chat().invoke("What is the capital of France?")
    assert made.content.strip()
    assert made.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in chat().stream("What is the capital of France?")).strip()


async def test_streams_asynchronously(chat: Any) -> None:
    text = "".join([chunk.content async for chunk in chat().astream("What is the capital of France?")])
    assert text.strip()


def test_binds_tools(chat: Any) -> None:
    model = chat().bind_tools([weather], tool_choice="weather")
    asked = HumanMessage("How is the weather in Oslo?")
    made = model.invoke([asked])
    assert isinstance(made, AIMessage)
    [call] = made.tool_calls
    assert call["name"] == "weather"
    assert isinstance(call["args"]["city"], str)
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert chat().invoke([asked, made, result]).content


def test_gives_structured_output(chat: Any) -> None:
    assert isinstance(chat().with_structured_output(City, method="json_schema").invoke("Describe Paris."), City)


def test_uses_the_responses_api(chat: Any) -> None:
    made = chat(use_responses_api=True).invoke("What is the capital of France?")
    assert made.text.strip()
