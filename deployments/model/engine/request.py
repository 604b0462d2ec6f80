"""What goes into the engine and what comes out of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class EngineOptions:
    """Sizes are in tokens. `n_ctx` is shared by all slots; one sequence may use `max_sequence_tokens` of it."""

    n_ctx: int = 16384
    max_sequence_tokens: int = 4096
    max_slots: int = 16
    n_batch: int = 512
    prefill_chunk: int = 256
    max_queue: int = 256
    n_gpu_layers: int = 0
    n_threads: int = field(default_factory=usable_cores)


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to make. `produced_token_ids` were made before, by this or another engine: generation goes
    on after them, penalties see them, and `max_tokens` counts them. `deadline` is a time.monotonic() value."""

    prompt_token_ids: tuple[int, ...]
    produced_token_ids: tuple[int, ...] = ()
    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 40
    min_p: float = 0.0
    repeat_penalty: float = 1.1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    deadline: float | None = None
    user: str = ""


@dataclass(frozen=True)
class TokenDelta:
    """Text that may be shown, and the tokens it came from. Never half a character, never part of a stop string."""

    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Finish:
    """The end of a generation; exactly one, and last. `completion_tokens` counts those produced before, too."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    message: str = ""


@dataclass(frozen=True)
class EngineStats:
    """A snapshot; `_total` fields only grow."""

    running: int
    waiting: int
    kv_used_tokens: int
    kv_total_tokens: int
    prefill_tokens_total: int
    decode_tokens_total: int
    cached_tokens_total: int
    steps_total: int


class EngineError(Exception):
    """Base of the engine's errors."""


class ModelFileError(EngineError):
    """The model file cannot be used; the message says why."""


class QueueFull(EngineError):
    """Too many requests wait already."""


class PromptRefused(EngineError):
    """The model's chat template does not take these messages; the message says why."""


class PromptTooLong(EngineError):
    """The prompt leaves no room for an answer. Attributes: `prompt_tokens`, `limit_tokens`."""

    def __init__(self, prompt_tokens: int, limit_tokens: int) -> None:
        super().__init__(f"the prompt has {prompt_tokens} tokens; this model takes at most {limit_tokens}")
        self.prompt_tokens = prompt_tokens
        self.limit_tokens = limit_tokens
