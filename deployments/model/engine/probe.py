"""Measures how fast a model runs, in a process of its own: threads that wait otherwise need another process, and a
setting that llama.cpp does not survive ends nothing else.

A task says how to run it: {"model": path, "options": EngineOptions', "prompt_tokens": number or null, "rows": [...] or
null, "room_bytes": what the process may take}. The answer: {"prefill": seconds a token, "decode": {"<rows>": seconds a
step}}; with "prompt_tokens" only {"prefill"}, that of one prompt of so many. A model stays loaded for the next task
that wants it; the context is made anew for each. One model and one context is all that there ever is.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from deployments.model.engine.backend import own_products
from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import open_context
from deployments.model.engine.errors import EngineError
from deployments.model.engine.huge_pages import huge_pages
from deployments.model.engine.kv_memory import KvMemory, Snapshot
from deployments.model.engine.mapped_pages import spared_pages
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.sizes import ModelShape
from deployments.model.engine.task_process import serve

ROWS = (1, 8, 16)
PROMPT_TOKENS, ANSWER_TOKENS = 60, 64
STEPS = 6
PREFILL_TOKENS = 120
# llama.cpp gives a sequence no fewer.
SEQUENCE_TOKENS = 256
# Buffers that a step computes in, beside the logits: 20 MB for the bundled model, 60 for one of 7 billion weights.
COMPUTE_BYTES = 64 << 20


class Runner:
    """A model and its context, whose steps are measured. The last slot is for prompts, the others for answers."""

    def __init__(self, path: Path, options: EngineOptions, model: Any = None) -> None:
        """`model` is the file, where it is loaded already. Raises ModelFileError, EngineError."""
        model = model or load_weights(path, options)
        self._context = open_context(model, options, options.max_sequence_tokens)
        self._memory = KvMemory(self._context)
        self._batch = Batch(options.n_batch, options.max_slots)
        self._prompt_slot = options.max_slots - 1
        self._prompt: Snapshot | None = None
        self._prompted: set[int] = set()

    def prefill(self, tokens: int) -> float:
        """Seconds a token of a prompt of so many."""
        self._memory.cut(self._prompt_slot, 0)
        began = time.perf_counter()
        for start in range(0, tokens, self._batch.capacity):
            self._rows([self._prompt_slot], min(tokens - start, self._batch.capacity), start)
        return (time.perf_counter() - began) / tokens

    def decode(self, rows: int) -> float:
        """Seconds a step of so many answers at once, fewer than there are slots. Their prompts stay."""
        slots = list(range(rows))
        for slot in slots:
            self._put_prompt(slot)
        return median(self._rows(slots, 1, PROMPT_TOKENS + number) for number in range(STEPS))

    def _put_prompt(self, slot: int) -> None:
        """Computed once: the other slots get copies, with cells of their own."""
        if slot in self._prompted and self._memory.cut(slot, PROMPT_TOKENS) == PROMPT_TOKENS:
            return
        if self._prompt is None or not self._memory.restore(slot, self._prompt):
            self._memory.cut(slot, 0)
            self._rows([slot], PROMPT_TOKENS, 0)
            self._prompt = self._prompt or self._memory.snapshot(slot, ())
        self._prompted.add(slot)

    def _rows(self, slots: list[int], tokens: int, start: int) -> float:
        """Computes so many tokens of each slot; returns the seconds."""
        self._batch.clear()
        for slot in slots:
            self._batch.add(slot, range(start + 10, start + 10 + tokens), start, 1)
        began = time.perf_counter()
        if llama.llama_decode(self._context, self._batch.struct) != 0:
            raise EngineError("a batch failed")
        llama.llama_synchronize(self._context)
        return time.perf_counter() - began

    def close(self) -> None:
        """Frees the context."""
        llama.llama_free(self._context)


def load_weights(path: Path, options: EngineOptions) -> Any:
    """As the engine loads them, without a second copy of what it maps. Raises ModelFileError."""
    with spared_pages(path), huge_pages(options.huge_pages):
        return load_model(path, options.n_gpu_layers, not options.huge_pages, options.repack)


class Probe:
    """The process's side: does tasks."""

    def __init__(self) -> None:
        self._model: Any = None
        self._loaded: tuple[Any, ...] = ()

    def do(self, task: dict[str, Any]) -> dict[str, Any]:
        """Raises ModelFileError, EngineError."""
        path, rows = Path(task["model"]), task["rows"]
        shape = None if rows else ModelShape.read(path)
        plain = EngineOptions(**task["options"])
        self._load(path, plain)
        if shape:
            rows = _fitting_rows(shape, self._vocabulary_size, task["room_bytes"])
        prompt = task["prompt_tokens"]
        slots, tokens = (1, prompt) if prompt else (max(rows) + 1, SEQUENCE_TOKENS)
        sizes = {"max_slots": slots, "max_sequence_tokens": tokens, "draft_tokens": 0}
        runner = Runner(path, EngineOptions(**task["options"] | sizes), self._model)
        try:
            answer = _prompt(runner, prompt) if prompt else _answers(runner, rows)
        finally:
            runner.close()
        return answer | ({"facts": self._facts(rows)} if shape else {})

    def _load(self, path: Path, options: EngineOptions) -> None:
        wanted = (path, options.n_gpu_layers, options.huge_pages, options.repack)
        if self._loaded == wanted:
            return
        if self._model:
            llama.llama_model_free(self._model)
        self._model, self._loaded = None, ()
        self._model = load_weights(path, options)
        self._loaded = wanted

    @property
    def _vocabulary_size(self) -> int:
        return llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))

    def _facts(self, rows: list[int]) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {
            "rows": rows,
            "weights": llama.llama_model_n_params(self._model),
            "own_products": own_products.types,
            "peak_bytes": peak,
        }


def _fitting_rows(shape: ModelShape, vocabulary: int, room_bytes: int) -> list[int]:
    """As many answers at once as there is room for beside the loaded model; one at least."""
    left = room_bytes - psutil.Process().memory_info().rss - COMPUTE_BYTES
    # Logits are there twice: where they are computed, and where they are read.
    each = shape.kv_token_bytes * SEQUENCE_TOKENS + 2 * 4 * vocabulary
    return [rows for rows in ROWS if rows == 1 or (rows + 1) * each <= left]


def _prompt(runner: Runner, tokens: int) -> dict[str, Any]:
    runner.prefill(PROMPT_TOKENS)  # a context's first step finds no memory in place
    return {"prefill": runner.prefill(tokens)}


def _answers(runner: Runner, rows: list[int]) -> dict[str, Any]:
    decode = {number: runner.decode(number) for number in rows}
    return {"prefill": runner.prefill(PREFILL_TOKENS), "decode": decode}


def main() -> None:
    """The process's side: until its input ends."""
    serve(Probe().do)


if __name__ == "__main__":
    main()
