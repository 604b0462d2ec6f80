"""Limits of a minute: never exceeded, never stricter than they say, shared by Gateways."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deployments.gateway.v1.bucket import Bucket
from deployments.gateway.v1.callers import ANYBODY, READ, Caller
from deployments.gateway.v1.errors import LimitReached
from deployments.gateway.v1.limits import Limits, Used, duration

ARRIVALS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20)), max_size=60)


@given(st.integers(1, 100), ARRIVALS)
def test_no_span_of_time_sees_more_than_a_full_bucket_and_what_leaks(per_minute: int, arrivals: list) -> None:
    bucket = Bucket(per_minute, 0.0)
    taken: list[tuple[float, int]] = []
    now = 0.0
    for pause, amount in arrivals:
        now += pause
        if bucket.wait_seconds(amount, now) == 0:
            bucket.add(amount, now)
            taken.append((now, amount))
    for first, (begin, _) in enumerate(taken):
        total = 0
        for end, amount in taken[first:]:
            total += amount
            assert total <= per_minute + per_minute / 60 * (end - begin) + 1e-6


@given(st.integers(1, 100), ARRIVALS, st.integers(1, 20))
def test_after_the_told_wait_there_is_room_and_not_before(per_minute: int, arrivals: list, amount: int) -> None:
    bucket = Bucket(per_minute, 0.0)
    now = 0.0
    for pause, used in arrivals:
        now += pause
        bucket.add(used, now)
    wait = bucket.wait_seconds(amount, now)
    if amount <= per_minute:
        assert bucket.wait_seconds(amount, now + wait + 1e-6) == 0
    if wait > 1e-3:
        assert bucket.wait_seconds(amount, now + wait / 2) > 0


class SharedBuckets(RuleBasedStateMachine):
    """Several Gateways that tell the database, at any time, what they used, and learn what all of them used. Telling
    may fail."""

    @initialize(per_minute=st.integers(1, 60), gateways=st.integers(1, 3))
    def begin(self, per_minute: int, gateways: int) -> None:
        self.now = 0.0
        self.rate = per_minute / 60
        self.buckets = [Bucket(per_minute, 0.0) for _ in range(gateways)]
        self.all = 0.0, 0.0
        self.added = [0.0] * gateways
        self.told = [0.0] * gateways

    def level(self) -> float:
        level, at = self.all
        return max(0.0, level - self.rate * (self.now - at))

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data(), amount=st.integers(1, 10))
    def use(self, data: st.DataObject, amount: int) -> None:
        one = data.draw(st.integers(0, len(self.buckets) - 1))
        self.buckets[one].add(amount, self.now)
        self.added[one] += amount

    @rule(data=st.data(), meanwhile=st.integers(0, 5), works=st.booleans())
    def tell(self, data: st.DataObject, meanwhile: int, works: bool) -> None:
        one = data.draw(st.integers(0, len(self.buckets) - 1))
        bucket = self.buckets[one]
        told = bucket.take_unreported()
        if meanwhile:
            bucket.add(meanwhile, self.now)
            self.added[one] += meanwhile
        if works:
            self.all = self.level() + told, self.now
            self.told[one] += told
            bucket.learn(self.level(), self.now)
            assert bucket.level(self.now) == pytest.approx(self.level() + meanwhile)
        else:
            bucket.put_back(told)

    @invariant()
    def what_was_learnt_and_what_was_added_is_in_each_bucket(self) -> None:
        for bucket, added, told in zip(self.buckets, self.added, self.told, strict=True):
            unreported = bucket.take_unreported()
            bucket.put_back(unreported)
            assert unreported == pytest.approx(added - told)


TestSharedBuckets = SharedBuckets.TestCase


@dataclass
class Clock:
    """Stands still unless it is moved."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Gateways:
    """Gateways with a database between them."""

    clock: Clock = field(default_factory=Clock)
    known: dict = field(default_factory=dict)

    def exchange(self, limits: Limits) -> None:
        """What a poll does, while the clock stands still."""
        told = limits.take_usage()
        for used in told:
            had = self.known.get(used.subject_id, Used(used.subject_id, 0, 0))
            self.known[used.subject_id] = Used(used.subject_id, had.requests + used.requests, had.tokens + used.tokens)
        limits.learn(self.known[used.subject_id] for used in told)


def caller() -> Caller:
    return Caller(uuid4(), b"hash", uuid4(), frozenset({READ}))


def test_without_limits_everything_is_admitted_and_nothing_told() -> None:
    limits = Limits(None, None)
    assert limits.admit(caller()) == {}
    limits.charge(caller(), 10_000)
    assert limits.take_usage() == []


def test_headers_tell_what_is_left() -> None:
    limits = Limits(60, 1000, Clock())
    somebody = caller()
    limits.charge(somebody, 100)
    assert limits.admit(somebody) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6s",
    }


def test_the_request_too_many_is_refused_until_the_wait_is_over() -> None:
    clock = Clock()
    limits = Limits(2, None, clock)
    somebody = caller()
    limits.admit(somebody)
    limits.admit(somebody)
    with pytest.raises(LimitReached) as caught:
        limits.admit(somebody)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.retry_after_seconds == 30
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
    clock.now += 30
    limits.admit(somebody)


def test_others_are_not_held_up() -> None:
    limits = Limits(1, None, Clock())
    limits.admit(caller())
    limits.admit(caller())


def test_anonymous_callers_share_one_limit() -> None:
    limits = Limits(1, None, Clock())
    limits.admit(ANYBODY)
    with pytest.raises(LimitReached):
        limits.admit(ANYBODY)


def test_tokens_beyond_the_limit_are_worked_off_before_the_next_request() -> None:
    clock = Clock()
    limits = Limits(None, 60, clock)
    somebody = caller()
    limits.admit(somebody)
    limits.charge(somebody, 90)
    clock.now += 30
    with pytest.raises(LimitReached):
        limits.admit(somebody)
    clock.now += 1
    limits.admit(somebody)


def test_a_refused_request_is_not_counted() -> None:
    clock = Clock()
    limits = Limits(60, 60, clock)
    somebody = caller()
    limits.charge(somebody, 60)
    for _ in range(100):
        with pytest.raises(LimitReached):
            limits.admit(somebody)
    clock.now += 1
    assert limits.admit(somebody)["x-ratelimit-remaining-requests"] == "59"


def test_gateways_keep_one_limit_together() -> None:
    gateways = Gateways()
    here, there = (Limits(10, None, gateways.clock) for _ in range(2))
    somebody = caller()
    there.admit(somebody)
    for _ in range(9):
        here.admit(somebody)
    gateways.exchange(there)
    gateways.exchange(here)
    gateways.exchange(there)
    for limits in (here, there):
        with pytest.raises(LimitReached):
            limits.admit(somebody)


def test_whoever_has_used_nothing_for_a_while_is_forgotten() -> None:
    clock = Clock()
    limits = Limits(1, None, clock)
    limits.admit(caller())
    clock.now += 59
    assert len(limits.take_usage()) == 1
    clock.now += 2
    assert limits.take_usage() == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0204, "20ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (59.9999, "1m0s")]
)
def test_durations_read_as_those_of_openai(seconds: float, text: str) -> None:
    assert duration(seconds) == text
