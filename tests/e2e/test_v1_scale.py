"""Models that need a product of their own: they have no replica until they are asked. One gets too much to do, one
makes embeddings."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from db.embedded import EmbeddedPostgres
from deployments.config import bundled_model_file
from deployments.local_cluster import CONFIG
from tests.support.gguf import with_pooling
from tests.support.person import PASSWORD, Person
from tests.support.product import Product

START_SECONDS = 120.0
HELLO = {"model": "default", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
LONG = HELLO | {"max_tokens": 400, "ignore_eos": True, "stream": True}
SETTINGS = {
    # Less than a replica needs to start, and more than a busy machine needs to take a request.
    "RUSTYGPT__API__START_SECONDS": "2",
    "RUSTYGPT__API__ANONYMOUS": "true",
    "RUSTYGPT__LLM__MODELS__default__MAX_SLOTS": "1",
    "RUSTYGPT__LLM__MODELS__default__MAX_QUEUE": "1",
    "RUSTYGPT__LLM__MODELS__embedder__MAX_SLOTS": "1",
    "RUSTYGPT__LLM__MODELS__embedder__WEIGHTS": "as_is",
}


def scaled_to_zero() -> dict[str, Any]:
    """The product's serve_config.yaml, its models without replicas until they are asked."""
    config = yaml.safe_load(CONFIG.read_text())
    model = next(application for application in config["applications"] if application["name"] == "model-default")
    del model["deployments"][0]["num_replicas"]
    model["deployments"][0]["autoscaling_config"] = {"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 3600}
    return config


@pytest.fixture(scope="module")
def sleeper() -> Iterator[httpx.Client]:
    """Anybody's client of a product whose model has not been asked yet."""
    folder = Path(tempfile.mkdtemp(prefix="rgpt-test-"))
    folder.chmod(0o755)
    config = folder / "serve_config.yaml"
    config.write_text(yaml.safe_dump(scaled_to_zero()))
    embedder = folder / "embedder.gguf"
    settings = SETTINGS | {"RUSTYGPT__LLM__MODELS__embedder__PATH": str(embedder)}
    product = Product(folder / "home", RUSTYGPT__CLUSTER__SERVE_CONFIG=str(config), **settings)
    try:
        with_pooling(bundled_model_file(), embedder, 1)
        product.start()
        account = {"username": "admin", "email": "admin@example.org", "password": PASSWORD}
        Person(product.url, "admin").call("POST", "/api/setup", account, 201)
        with httpx.Client(base_url=product.url, timeout=60) as http:
            yield http
    finally:
        product.stop()
        EmbeddedPostgres(folder / "home" / "postgres").stop()
        shutil.rmtree(folder, ignore_errors=True)


def answered(http: httpx.Client, path: str = "/v1/chat/completions", body: dict[str, Any] = HELLO) -> httpx.Response:
    """As a client does it that heeds Retry-After."""
    deadline = time.monotonic() + START_SECONDS
    while (answer := http.post(path, json=body)).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(min(1.0, float(answer.headers["Retry-After"])))
    return answer


def test_a_model_without_replica_is_started_by_the_first_request_and_answers_a_later_one(sleeper: httpx.Client) -> None:
    assert sleeper.get("/v1/models").json()["data"][0]["id"] == "default"
    refused = sleeper.post("/v1/chat/completions", json=HELLO)
    assert refused.status_code == 503, refused.text
    assert float(refused.headers["Retry-After"]) > 0
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "model_starting")
    answer = answered(sleeper)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]


async def test_who_comes_when_the_queue_is_full_is_told_when_to_come_again(sleeper: httpx.Client) -> None:
    answered(sleeper)
    async with httpx.AsyncClient(base_url=sleeper.base_url, timeout=60) as http:

        async def ask() -> tuple[int, httpx.Headers, str]:
            async with http.stream("POST", "/v1/chat/completions", json=LONG) as answer:
                return answer.status_code, answer.headers, (await answer.aread()).decode()

        asked = await asyncio.gather(*(ask() for _ in range(6)))
    taken = [text for status, _, text in asked if status == 200]
    refused = [(headers, text) for status, headers, text in asked if status == 429]
    assert len(taken) + len(refused) == 6
    # One runs and one waits; whoever comes later waits only if one of them has ended.
    assert refused
    assert taken
    assert all(text.endswith("data: [DONE]\n\n") for text in taken)
    for headers, text in refused:
        assert float(headers["Retry-After"]) > 0
        assert '"code":"queue_full"' in text


def test_a_model_that_makes_embeddings_makes_them_in_order_and_another_refuses(sleeper: httpx.Client) -> None:
    # More than the Gateway sends in one call.
    texts = [f"The cat sat on mat number {i}." for i in range(20)] + ["Interest rates rose by two percent."]
    answer = answered(sleeper, "/v1/embeddings", {"model": "embedder", "input": texts})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    vectors = np.array([item["embedding"] for item in made["data"]])
    assert [item["index"] for item in made["data"]] == list(range(21))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert vectors[0] @ vectors[19] > vectors[0] @ vectors[20]
    assert made["usage"]["prompt_tokens"] >= 21 * 6
    refused = answered(sleeper, "/v1/embeddings", {"model": "default", "input": texts})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
