"""One generation on its way through the engine, and the slots of KV memory it may live in."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from deployments.model.engine.detokenizer import Detokenizer
from deployments.model.engine.request import Finish, FinishReason, GenerationRequest, TokenDelta, TokenLogprob
from deployments.model.engine.sampler import Sampler
from deployments.model.engine.speculation import Drafter


@dataclass(eq=False)
class Slot:
    """A sequence id of llama.cpp. `tokens` are those whose KV is computed, kept after use as a cached prefix."""

    id: int
    tokens: list[int] = field(default_factory=list)
    sequence: Sequence | None = None


class Sequence:
    """State of one generation. Touched by the engine's thread only, but for `cancelled` and `outbox`.

    waiting --gets a slot--> prefill --all but the last token computed--> decode --> ended
    prefill, decode --preempted--> waiting (its slot goes to somebody else; nothing is lost)
    """

    def __init__(
        self,
        request: GenerationRequest,
        detokenizer: Detokenizer,
        sampler: Sampler,
        limit_tokens: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.request = request
        self.tokens = [*request.prompt_token_ids, *request.produced_token_ids]
        self.limit_tokens = limit_tokens
        self.slot: Slot | None = None
        self.sampler = sampler
        self.drafter = Drafter(self.tokens)
        self.cached_tokens: int | None = None  # of its prompt when it was begun
        self.is_ready = True  # for a slot; not while its prompt is computed aside, or waits for that (prefill_lane.py)
        self.was_aside = False
        self.prefill_tokens = 0  # to compute when it got its slot
        self.cancelled = False
        self.arrived = time.monotonic()
        self.started = 0.0
        self.loop = loop
        self.outbox: asyncio.Queue[TokenDelta | Finish] = asyncio.Queue()
        self._detokenizer = detokenizer
        self._unsent: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        for token in request.produced_token_ids:
            detokenizer.feed(token)  # shown before: only the state it leaves matters

    @property
    def user(self) -> str:
        """Whom the scheduler is fair to."""
        return self.request.user

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer so far, those produced before included."""
        return len(self.tokens) - len(self.request.prompt_token_ids)

    @property
    def missing_tokens(self) -> int:
        """Tokens to compute before the next one can be sampled; 1 while it decodes."""
        return len(self.tokens) - (len(self.slot.tokens) if self.slot else 0)

    def early_end(self) -> FinishReason | None:
        """Why this sequence must end now, before another token is made."""
        if self.cancelled:
            return "cancelled"
        if self._detokenizer.stopped_by:
            return "stop"
        if len(self.tokens) >= self.limit_tokens:
            return "length"
        if self.request.deadline is not None and time.monotonic() >= self.request.deadline:
            return "timeout"
        return None

    def accept(self, token: int, logprob: TokenLogprob | None) -> TokenDelta | None:
        """Takes a new token of the answer; returns what may be shown now."""
        self.tokens.append(token)
        self._unsent.append(token)
        if logprob:
            self._logprobs.append(logprob)
        return self._delta(self._detokenizer.feed(token))

    def rest(self) -> TokenDelta | None:
        """What was held back, at the end."""
        return None if self._detokenizer.stopped_by else self._delta(self._detokenizer.flush())

    def _delta(self, text: str) -> TokenDelta | None:
        if not text:
            return None
        delta = TokenDelta(tuple(self._unsent), text, tuple(self._logprobs))
        self._unsent.clear()
        self._logprobs.clear()
        return delta

    def finish(self, reason: FinishReason, message: str = "") -> Finish:
        """The closing item."""
        return Finish(
            reason,
            len(self.request.prompt_token_ids),
            self.completion_tokens,
            self.cached_tokens or 0,
            message,
            self._detokenizer.stopped_by if reason == "stop" else None,
        )
