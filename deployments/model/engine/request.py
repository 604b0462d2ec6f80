"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deployments.model.engine.errors import InvalidRequest
from deployments.model.engine.hardware import usable_cores

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]

MOST_TOP_LOGPROBS = 20
MOST_STOP_STRINGS = 16
BURST_BATCHES = 4


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs. The KV memory holds `max_slots` times `max_sequence_tokens` tokens. A step has at most
    `n_batch` tokens of a prompt, and of several at most BURST_BATCHES times as many, computed `n_ubatch` at a time.
    With `huge_pages`, weights are this process's own memory instead of the mapped file's. With `repack`, llama.cpp may
    copy weights into a layout that the processor's kernels (AMX among them) read faster."""

    max_slots: int = 16
    max_sequence_tokens: int = 4096
    n_batch: int = 512
    n_ubatch: int = 512
    kv_unified: bool = False
    flash_attention: bool = True
    huge_pages: bool = False
    repack: bool = True
    max_queue: int = 256
    n_threads: int = field(default_factory=usable_cores)
    n_gpu_layers: int = 0
    prefix_cache_bytes: int = 512 << 20
    draft_tokens: int = 3
    lora: tuple[tuple[Path, float], ...] = ()

    @property
    def most_step_tokens(self) -> int:
        """Tokens that a step may have: those of a burst of prompts."""
        return BURST_BATCHES * self.n_batch


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to make.

    `produced_token_ids` were made before, by this or another engine: generation goes on after them, penalties and
    grammar see them, and `max_tokens` counts them. `deadline` is a time.monotonic() value. The answer follows the
    `grammar` (GBNF with a rule `root`) or the `json_schema` ({} for any JSON), where one is given. `top_logprobs` None
    means no log-probabilities, 0 those of the chosen tokens only. `user` is whom the scheduler is fair to. Control
    tokens have no text, but for those whose names are in `shown_tokens`. Raises InvalidRequest when a value is out of
    its range.
    """

    prompt_token_ids: tuple[int, ...]
    produced_token_ids: tuple[int, ...] = ()
    max_tokens: int = 512
    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    top_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    shown_tokens: tuple[str, ...] = ()
    ignore_eos: bool = False
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    deadline: float | None = None
    user: str = ""

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float, float], ...] = (
            ("max_tokens", 1, float("inf")),
            ("temperature", 0, 2),
            ("top_k", 0, float("inf")),
            ("top_p", 0, 1),
            ("min_p", 0, 1),
            ("typical_p", 0, 1),
            ("presence_penalty", -2, 2),
            ("frequency_penalty", -2, 2),
        )
        for name, least, most in ranges:
            value = getattr(self, name)
            if not least <= value <= most:  # a NaN is refused as well
                raise InvalidRequest(name, f"must be between {least:g} and {most:g}; it is {value}")
        if not 0 < self.repeat_penalty <= 10:
            raise InvalidRequest("repeat_penalty", f"must be above 0 and at most 10; it is {self.repeat_penalty}")
        if self.seed is not None and self.seed < 0:
            raise InvalidRequest("seed", f"must not be negative; it is {self.seed}")
        if self.grammar is not None and self.json_schema is not None:
            raise InvalidRequest("grammar", "give either a grammar or a json_schema")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS:
            raise InvalidRequest("top_logprobs", f"must be between 0 and {MOST_TOP_LOGPROBS}")
        if len(self.stop) > MOST_STOP_STRINGS:
            raise InvalidRequest("stop", f"at most {MOST_STOP_STRINGS} stop strings can be given")
        if not all(-100 <= bias <= 100 for bias in self.logit_bias.values()):
            raise InvalidRequest("logit_bias", "a bias must be between -100 and 100")


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithm of a token's probability before penalties and temperature; `top` has the likeliest first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenDelta:
    """Text that may be shown, and the tokens it came from. Never half a character, never part of a stop string."""

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finish:
    """The end of a generation; exactly one, and last. `completion_tokens` counts those produced before, too.
    `stop_string` is the one that ended it, None where the model has ended by itself."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    message: str = ""
    stop_string: str | None = None
