"""Models that are more than the bundled one: embeddings and adapters, made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import (
    Engine,
    EngineOptions,
    Finish,
    GenerationRequest,
    ModelFileError,
    NoEmbeddings,
    PromptTooLong,
)
from tests.support.gguf import with_pooling, write_adapter

EMBEDDING_SIZE, RANK = 576, 4


def options(*lora: tuple[Path, float]) -> EngineOptions:
    return EngineOptions(max_sequence_tokens=256, max_slots=2, lora=lora)


async def answer(engine: Engine, tokens: int = 12) -> list[int]:
    prompt = tuple(engine.tokenize("The capital of France is"))
    found: list[int] = []
    async for item in engine.generate(GenerationRequest(prompt, max_tokens=tokens, temperature=0, ignore_eos=True)):
        if not isinstance(item, Finish):
            found += item.token_ids
    return found


def adapter(path: Path, size: float) -> Path:
    chance = np.random.default_rng(1)
    return write_adapter(
        path,
        {
            "blk.0.attn_q.weight.lora_a": chance.normal(size=(RANK, EMBEDDING_SIZE)).astype(np.float32) * size,
            "blk.0.attn_q.weight.lora_b": chance.normal(size=(EMBEDDING_SIZE, RANK)).astype(np.float32) * size,
            "blk.0.ffn_down.weight.lora_a": chance.normal(size=(RANK, 1536)).astype(np.float32) * size,
            "blk.0.ffn_down.weight.lora_b": chance.normal(size=(EMBEDDING_SIZE, RANK)).astype(np.float32) * size,
        },
    )


async def test_embeddings_have_length_one_and_follow_the_meaning(tmp_path: Path) -> None:
    engine = Engine(with_pooling(bundled_model_file(), tmp_path / "pooled.gguf", 1), options())
    try:
        texts = ("The cat sat on the mat.", "A cat was sitting on a mat.", "Interest rates rose by two percent.")
        cat, other_cat, rates = [await engine.embed(engine.tokenize(text)) for text in texts]
        assert cat.shape == (EMBEDDING_SIZE,)
        assert all(abs(float(np.linalg.norm(v)) - 1) < 1e-5 for v in (cat, other_cat, rates))
        assert np.dot(cat, other_cat) > np.dot(cat, rates)
        again = await engine.embed(engine.tokenize(texts[0]))
        assert np.dot(cat, again) > 0.999
        with pytest.raises(PromptTooLong):
            await engine.embed([])
        with pytest.raises(PromptTooLong):
            await engine.embed([5] * 300)
        assert len(await answer(engine, 3)) == 3, "it still generates"
    finally:
        engine.close()


async def test_model_without_pooling_says_that_it_makes_no_embeddings() -> None:
    engine = Engine(bundled_model_file(), options())
    try:
        with pytest.raises(NoEmbeddings, match="use an embedding model"):
            await engine.embed([1, 2, 3])
        assert len(await answer(engine, 3)) == 3
    finally:
        engine.close()


async def test_adapter_changes_the_answer_by_its_scale(tmp_path: Path) -> None:
    file = adapter(tmp_path / "lora.gguf", 0.5)
    answers: list[list[int]] = []
    for lora in ((), ((file, 0.0),), ((file, 1.0),)):
        engine = Engine(bundled_model_file(), options(*lora))
        try:
            answers.append(await answer(engine))
        finally:
            engine.close()
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_adapter_that_does_not_fit_is_told(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("not an adapter")
    other = write_adapter(
        tmp_path / "other.gguf",
        {
            "blk.0.attn_q.weight.lora_a": np.ones((RANK, 64), np.float32),
            "blk.0.attn_q.weight.lora_b": np.ones((64, RANK), np.float32),
        },
    )
    for file in (text, other, tmp_path / "missing.gguf"):
        with pytest.raises(ModelFileError, match=file.name):
            Engine(bundled_model_file(), options((file, 1.0)))
