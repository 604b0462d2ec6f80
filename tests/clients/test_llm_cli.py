"""The `llm` command line, with the product as one of its OpenAI-compatible models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.clients.conftest import MODEL

Run = Callable[..., str]


@pytest.fixture
def llm(tmp_path: Path, base_url: str, api_key: str) -> Run:
    """Runs `llm` with a folder of its own; returns what it prints."""
    models = [
        {
            "model_id": "rusty",
            "model_name": MODEL,
            "api_base": base_url,
            "api_key_name": "rusty",
            "supports_schema": True,
            "supports_tools": True,
        }
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text(json.dumps({"rusty": api_key}))
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("streaming", [[], ["--no-stream"]])
def test_answers(llm: Run, streaming: list[str]) -> None:
    said = llm(
        "-m", "rusty", *streaming, "-o", "temperature", "0", "-o", "max_tokens", "24", "What is the capital of France?"
    )
    assert said.strip()


def test_goes_on_with_a_conversation(llm: Run) -> None:
    llm("-m", "rusty", "-o", "max_tokens", "8", "My name is Ann.")
    assert llm("-c", "-o", "max_tokens", "8", "What is my name?").strip()


def test_follows_a_schema(llm: Run) -> None:
    said = llm("-m", "rusty", "--no-stream", "-o", "max_tokens", "100", "--schema", "days int", "How long is a week?")
    assert isinstance(json.loads(said)["days"], int)
