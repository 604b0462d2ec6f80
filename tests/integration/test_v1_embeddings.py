"""Embeddings over HTTP, by a real model that makes them. Only the way between Gateway and Model is short here: both are
in this process."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.config import Settings, bundled_model_file
from deployments.gateway.app import build_app
from deployments.gateway.services import Services
from deployments.gateway.v1.asking import Asking
from deployments.gateway.v1.errors import from_refused
from deployments.generation import Embedded, Refused
from deployments.model import asks
from deployments.model.engine import Engine, EngineOptions
from tests.integration.conftest import Store
from tests.support.gguf import with_pooling

SIZE = 576


class SameProcess(Asking):
    """Asks an engine of this process."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(Settings().llm, 1.0)
        self._engine = engine

    async def embed(self, model_id: str, texts: Sequence[str | tuple[int, ...]]) -> Embedded:
        self.check(model_id)
        made = await asks.embed(self._engine, texts)
        if isinstance(made, Refused):
            raise from_refused(made)
        return made


@pytest.fixture(scope="module")
async def api(store: Store, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    model = with_pooling(bundled_model_file(), tmp_path_factory.mktemp("model") / "pooled.gguf", 1)
    engine = Engine(model, EngineOptions(max_sequence_tokens=128, max_slots=1))
    defaults = Settings()
    settings = defaults.model_copy(update={"api": defaults.api.model_copy(update={"anonymous": True})})
    services = dataclasses.replace(Services.build(settings, store.app), asking=SameProcess(engine))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app(services)), base_url="http://gateway") as http:
        yield http
    engine.close()


async def embed(api: httpx.AsyncClient, given: object, status: int = 200, **options: Any) -> Any:
    answer = await api.post("/v1/embeddings", json={"model": "default", "input": given} | options, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_texts_of_like_meaning_have_like_vectors(api: httpx.AsyncClient) -> None:
    texts = ["The cat sat on the mat.", "A cat was sitting on a mat.", "Interest rates rose by two percent."]
    made = await embed(api, texts)
    assert [item["index"] for item in made["data"]] == [0, 1, 2]
    cat, other_cat, rates = (np.array(item["embedding"]) for item in made["data"])
    assert np.isclose(np.linalg.norm(cat), 1, atol=1e-5)
    assert cat @ other_cat > cat @ rates
    assert made["usage"]["prompt_tokens"] == made["usage"]["total_tokens"] > 0


async def test_a_vector_comes_shorter_and_as_base64_where_that_is_asked(api: httpx.AsyncClient) -> None:
    [whole] = (await embed(api, "A text"))["data"]
    [short] = (await embed(api, "A text", dimensions=8, encoding_format="base64"))["data"]
    vector = np.frombuffer(base64.b64decode(short["embedding"]), "<f4")
    assert vector.shape == (8,)
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)
    assert np.allclose(vector, np.array(whole["embedding"][:8]) / np.linalg.norm(whole["embedding"][:8]), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "options", "param"),
    [
        ("", {}, "input"),
        ([], {}, "input"),
        ("A text", {"dimensions": SIZE + 1}, "dimensions"),
        ([[49_152]], {}, "input"),
        ("word " * 500, {}, None),
    ],
    ids=["empty", "none", "too many dimensions", "no such token", "too long"],
)
async def test_what_cannot_be_embedded_is_refused(
    api: httpx.AsyncClient, given: object, options: dict[str, Any], param: str | None
) -> None:
    error = (await embed(api, given, 400, **options))["error"]
    assert error["type"] == "invalid_request_error"
    if param:
        assert error["param"] == param
    assert (await embed(api, "It lives on."))["data"]
