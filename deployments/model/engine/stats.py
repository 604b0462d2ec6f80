"""What the engine counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Since the engine was made; they only grow. `aside_tokens_total` of the prefilled tokens were computed beside the
    steps. `padding_rows_total` were computed besides, to make prompts equally long (even_parts.py)."""

    steps_total: int = 0
    prefill_tokens_total: int = 0
    aside_tokens_total: int = 0
    padding_rows_total: int = 0
    decode_tokens_total: int = 0
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    drafted_tokens_total: int = 0
    accepted_tokens_total: int = 0
    preemptions_total: int = 0
    finished_total: int = 0
    failed_steps_total: int = 0
    step_seconds_total: float = 0.0
    compute_seconds_total: float = 0.0
    sample_seconds_total: float = 0.0

    @property
    def python_seconds_total(self) -> float:
        """Time of the engine's thread in steps that was neither computing nor sampling."""
        return self.step_seconds_total - self.compute_seconds_total - self.sample_seconds_total


@dataclass(frozen=True)
class EngineStats:
    """A snapshot. `_total` fields only grow; `batch_tokens` are the rows of the latest step."""

    running: int
    waiting: int
    threads: int
    batch_tokens: int
    kv_used_tokens: int
    kv_total_tokens: int
    prefix_cache_bytes: int
    steps_total: int
    prefill_tokens_total: int
    aside_tokens_total: int
    padding_rows_total: int
    decode_tokens_total: int
    prompt_tokens_total: int
    cached_tokens_total: int
    drafted_tokens_total: int
    accepted_tokens_total: int
    preemptions_total: int
    finished_total: int
    failed_steps_total: int
    step_seconds_total: float
    compute_seconds_total: float
    sample_seconds_total: float
    python_seconds_total: float
