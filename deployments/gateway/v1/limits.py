"""How many requests and tokens a caller may use in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from deployments.gateway.v1.bucket import SECONDS, Bucket
from deployments.gateway.v1.callers import Caller
from deployments.gateway.v1.errors import LimitReached
from deployments.observability.metrics import API_LIMITED

ANONYMOUS = UUID(int=0)
"""All anonymous callers share one limit."""

# Least room that a bucket of tokens must have for a request whose tokens nobody knows yet.
SOME_TOKENS = 1


@dataclass
class _Usage:
    requests: Bucket | None
    tokens: Bucket | None
    used_at: float

    def buckets(self) -> Iterable[tuple[str, Bucket, int]]:
        if self.requests is not None:
            yield "requests", self.requests, 1
        if self.tokens is not None:
            yield "tokens", self.tokens, SOME_TOKENS

    def is_idle(self, now: float) -> bool:
        return now - self.used_at > SECONDS and all(bucket.level(now) == 0 for _, bucket, _ in self.buckets())


@dataclass(frozen=True)
class Used:
    """What a subject (a key, or a user with a session) has used."""

    subject_id: UUID
    requests: float
    tokens: float


class Limits:
    """The limits of each key and of each user with a session, as far as this Gateway knows of their use.

    Gateways exchange it about once a second (`take_usage`, `learn`): by so much may all together go beyond a limit.
    A request is admitted while any tokens are left; those of its answer are charged at its end and may exceed them,
    which then takes longer to wear off. `on_use` is called whenever there is something to exchange.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._clock = clock
        self._usage: dict[UUID, _Usage] = {}
        self.on_use: Callable[[], None] = lambda: None

    @property
    def rates(self) -> tuple[float, float]:
        """Requests and tokens that are forgiven per second; 0 where there is no limit."""
        return (self._requests_per_minute or 0) / SECONDS, (self._tokens_per_minute or 0) / SECONDS

    def admit(self, caller: Caller) -> dict[str, str]:
        """Counts a request and returns the headers that tell its caller of the limits. Raises ApiError 429."""
        if not self._is_on():
            return {}
        now = self._clock()
        usage = self._of(caller, now)
        for kind, bucket, amount in usage.buckets():
            if wait := bucket.wait_seconds(amount, now):
                API_LIMITED.inc(tags={"type": kind})
                message = (
                    f"You have reached your limit of {bucket.per_minute} {kind} per minute. Try again in {wait:.1f} s."
                )
                raise LimitReached(message, wait, self._headers(usage, now))
        if usage.requests is not None:
            usage.requests.add(1, now)
        self.on_use()
        return self._headers(usage, now)

    def charge(self, caller: Caller, tokens: int) -> None:
        """Counts the tokens of an answer that has ended, prompt included. Returns at once, raises nothing."""
        if self._tokens_per_minute is None or tokens == 0:
            return
        now = self._clock()
        usage = self._of(caller, now)
        assert usage.tokens is not None
        usage.tokens.add(tokens, now)
        self.on_use()

    def take_usage(self) -> list[Used]:
        """All whose use others may want to know of, or may have used something; what was used here since the last call.
        To be given back to `put_back` if nobody could be told."""
        now = self._clock()
        self._usage = {subject_id: usage for subject_id, usage in self._usage.items() if not usage.is_idle(now)}
        return [
            Used(
                subject_id,
                usage.requests.take_unreported() if usage.requests else 0.0,
                usage.tokens.take_unreported() if usage.tokens else 0.0,
            )
            for subject_id, usage in self._usage.items()
        ]

    def put_back(self, told: Iterable[Used]) -> None:
        """It was not told."""
        for used in told:
            usage = self._usage[used.subject_id]
            if usage.requests is not None:
                usage.requests.put_back(used.requests)
            if usage.tokens is not None:
                usage.tokens.put_back(used.tokens)

    def learn(self, used: Iterable[Used]) -> None:
        """What all Gateways together have used and is not yet forgiven."""
        now = self._clock()
        for total in used:
            usage = self._usage[total.subject_id]
            if usage.requests is not None:
                usage.requests.learn(total.requests, now)
            if usage.tokens is not None:
                usage.tokens.learn(total.tokens, now)

    def _is_on(self) -> bool:
        return self._requests_per_minute is not None or self._tokens_per_minute is not None

    def _of(self, caller: Caller, now: float) -> _Usage:
        subject_id = caller.key_id or caller.user_id or ANONYMOUS
        usage = self._usage.get(subject_id)
        if usage is None:
            requests, tokens = self._requests_per_minute, self._tokens_per_minute
            usage = self._usage[subject_id] = _Usage(
                Bucket(requests, now) if requests is not None else None,
                Bucket(tokens, now) if tokens is not None else None,
                now,
            )
        usage.used_at = now
        return usage

    def _headers(self, usage: _Usage, now: float) -> dict[str, str]:
        headers = {}
        for kind, bucket, _ in usage.buckets():
            headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
            headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining(now))
            headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.empty_seconds(now))
        return headers


def duration(seconds: float) -> str:
    """As OpenAI writes them: 20ms, 1.5s, 6m0s."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
