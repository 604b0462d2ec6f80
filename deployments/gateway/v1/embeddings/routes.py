"""POST /v1/embeddings."""

from __future__ import annotations

import base64

import numpy as np
from fastapi import APIRouter, Response

from deployments.gateway.services import ServicesOf
from deployments.gateway.v1.callers import WriterOf
from deployments.gateway.v1.embeddings.schemas import MEANINGFUL, EmbeddingRequest
from deployments.gateway.v1.fields import invalid
from deployments.gateway.v1.json_text import json_response

router = APIRouter(tags=["OpenAI API"])


@router.post("/v1/embeddings")
async def embed(body: EmbeddingRequest, services: ServicesOf, caller: WriterOf) -> Response:
    """A vector of length 1 for each text, by a model that makes them."""
    warnings = body.warnings(MEANINGFUL)
    texts = [text if isinstance(text, str) else tuple(text) for text in body.input]
    embedded = await services.asking.embed(body.model, texts)
    services.limits.charge(caller, embedded.tokens)
    vectors = np.asarray(embedded.vectors, np.float32)
    if body.dimensions is not None:
        if body.dimensions > vectors.shape[1]:
            raise invalid("dimensions", f"This model's vectors have {vectors.shape[1]} dimensions.")
        vectors = vectors[:, : body.dimensions]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(vectors.astype("<f4"))
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    made = {"object": "list", "data": data, "model": body.model, "usage": usage}
    if warnings:
        made["warnings"] = warnings
    return json_response(made)


def _encoded(vector: np.ndarray, form: str | None) -> str | list[float]:
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()
