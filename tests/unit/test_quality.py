"""Comparing versions of a model with one of them in memory at a time."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import EngineOptions
from deployments.model.engine import quality as module
from deployments.model.engine.hardware import usable_cores
from deployments.model.engine.quality import compare
from deployments.model.engine.vocabulary import Vocabulary
from deployments.model.engine.weights import FORMATS, requantise

TEXT = "The harbour lay still in the morning, and the boats that had come in at night were not unloaded yet. " * 3


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("quality") / "version.gguf"
    requantise(bundled_model_file(), file, FORMATS[1], usable_cores())
    return file


def test_what_is_kept_gives_nearly_the_exact_divergence(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    monkeypatch.setattr(module, "TEXT", text)
    found = compare(bundled_model_file(), {"version": version}, usable_cores())["version"]
    given, other = (_log_probabilities(path) for path in (bundled_model_file(), version))
    exact = float((np.exp(given) * (given - other)).sum(1).mean())
    assert 0.95 * exact <= found.divergence_nats <= exact
    assert found.same_top == np.mean(given.argmax(1) == other.argmax(1))
    with closing(module._Reader(bundled_model_file(), EngineOptions())) as reader:
        following = Vocabulary(reader.model).tokenize(TEXT)[1:]
    rows = np.arange(len(following))
    ratio = math.exp((given[rows, following] - other[rows, following]).mean())
    assert found.perplexity_ratio == pytest.approx(ratio, rel=1e-6)


def test_a_model_does_not_differ_from_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    monkeypatch.setattr(module, "TEXT", text)
    found = compare(bundled_model_file(), {"same": bundled_model_file()}, usable_cores())["same"]
    assert found.divergence_nats == pytest.approx(0, abs=1e-9)
    assert found.perplexity_ratio == 1
    assert found.same_top == 1


def test_no_block_of_logits_is_larger_than_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGITS_BYTES", 4 * 49152 * 3)
    with closing(module._Reader(bundled_model_file(), EngineOptions())) as reader:
        assert reader._batch.capacity == 3
        tokens = Vocabulary(reader.model).tokenize(TEXT)[:10]
        few = np.array([row.copy() for row in reader.logits(tokens)])
    monkeypatch.undo()
    with closing(module._Reader(bundled_model_file(), EngineOptions())) as reader:
        assert reader._batch.capacity > 10
        many = np.array([row.copy() for row in reader.logits(tokens)])
    assert few.shape == many.shape == (10, 49152)
    assert np.abs(few - many).max() < 1, "the last bits follow how many rows are computed at once"


def _log_probabilities(path: Path) -> np.ndarray:
    """Of every token of the vocabulary, after each token of TEXT that is followed by one."""
    with closing(module._Reader(path, EngineOptions())) as reader:
        tokens = Vocabulary(reader.model).tokenize(TEXT)
        logits = np.array([row.astype(np.float64) for row in reader.logits(tokens[:-1])])
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))
