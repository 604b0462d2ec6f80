"""The scheduler with sequences that compute nothing: who runs, in what order, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.config import bundled_model_file
from deployments.model.engine.detokenizer import Detokenizer
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import GenerationRequest
from deployments.model.engine.sampler import Sampler
from deployments.model.engine.scheduler import Scheduler
from deployments.model.engine.sequence import Sequence, Slot
from deployments.model.engine.step_times import LEAST_CHUNK_TOKENS, StepTimes
from deployments.model.engine.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(load_model(bundled_model_file(), 0))


def sequence(vocabulary: Vocabulary, user: str, tokens: int = 10, arrived: float | None = None) -> Sequence:
    request = GenerationRequest(tuple(range(tokens)), user=user)
    loop = asyncio.new_event_loop()
    loop.close()
    made = Sequence(request, Detokenizer(vocabulary.pieces, ()), Sampler(request, vocabulary), 5000, loop)
    made.arrived = time.monotonic() if arrived is None else arrived
    return made


def give(scheduler: Scheduler, sequence: Sequence, slot: Slot) -> None:
    slot.sequence, sequence.slot = sequence, slot
    scheduler.start(sequence)


def free(scheduler: Scheduler, sequence: Sequence) -> None:
    assert sequence.slot
    sequence.slot.sequence = None
    sequence.slot = None
    scheduler.end(sequence)


def test_slots_go_to_users_in_turn_and_to_the_oldest_of_a_user(vocabulary: Vocabulary) -> None:
    scheduler = Scheduler([Slot(i) for i in range(4)])
    many = [sequence(vocabulary, "many", arrived=float(i)) for i in range(3)]
    one = sequence(vocabulary, "one", arrived=9.0)
    scheduler.waiting += [*reversed(many), one]
    assert scheduler.fair_order() == [many[0], one, many[1], many[2]]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), users=st.integers(1, 5), slots=st.integers(1, 5))
def test_everybody_gets_a_slot_and_no_slot_is_used_twice(
    vocabulary: Vocabulary, seed: int, users: int, slots: int
) -> None:
    chance = random.Random(seed)
    scheduler = Scheduler([Slot(i) for i in range(slots)])
    arriving = [sequence(vocabulary, f"user {chance.randrange(users)}", arrived=float(i)) for i in range(20)]
    served: list[Sequence] = []
    while len(served) < 20:
        for _ in range(chance.randrange(3)):
            if arriving:
                scheduler.waiting.append(arriving.pop(0))
        for waiting in scheduler.fair_order():
            if not (free_slots := scheduler.free_slots()):
                break
            shares = Counter(s.user for s in scheduler.running)
            assert shares[waiting.user] == min(shares[other.user] for other in scheduler.waiting)
            give(scheduler, waiting, chance.choice(free_slots))
            served.append(waiting)
        used = {id(s.slot) for s in scheduler.running}
        assert len(used) == len(scheduler.running) <= slots
        assert len(scheduler.running) == slots or not scheduler.waiting
        if scheduler.running and chance.random() < 0.7:
            free(scheduler, chance.choice(scheduler.running))


def test_running_slots_stay_together(vocabulary: Vocabulary) -> None:
    slots = [Slot(i) for i in range(6)]
    scheduler = Scheduler(slots)
    for place in (1, 2, 4):
        one = sequence(vocabulary, "")
        scheduler.waiting.append(one)
        give(scheduler, one, slots[place])
    assert scheduler.free_slots() == [slots[3]]
    gap = scheduler.gap()
    assert gap
    assert (gap[0].slot, gap[1]) == (slots[4], slots[3])


def test_youngest_of_many_gives_way_to_a_user_who_has_none(vocabulary: Vocabulary) -> None:
    scheduler = Scheduler([Slot(0), Slot(1)])
    for slot, age in ((Slot(0), 60.0), (Slot(1), 50.0)):
        one = sequence(vocabulary, "many", arrived=time.monotonic() - age)
        scheduler.waiting.append(one)
        give(scheduler, one, slot)
        one.started = one.arrived
    assert scheduler.victim() is None
    scheduler.waiting.append(sequence(vocabulary, "many", arrived=time.monotonic() - 40))
    assert scheduler.victim() is None, "a user does not displace himself"
    scheduler.waiting.append(sequence(vocabulary, "other", arrived=time.monotonic() - 30))
    victim = scheduler.victim()
    assert victim is scheduler.running[1]
    scheduler.preempt(scheduler.running[1])
    assert scheduler.victim() is None, "there is a free slot now"
    assert scheduler.fair_order()[0].user == "other"


def test_waits_for_a_prefix_that_is_being_computed_and_only_then(vocabulary: Vocabulary) -> None:
    slot = Slot(0)
    scheduler = Scheduler([slot, Slot(1)])
    first, second = (sequence(vocabulary, user, tokens=90) for user in "ab")
    scheduler.waiting += [first, second]
    assert not scheduler.awaits_prefix(second, 0)
    give(scheduler, first, slot)
    assert scheduler.awaits_prefix(second, 0)
    slot.tokens = first.tokens[:60]
    assert not scheduler.awaits_prefix(second, 60), "too little is left to wait for"
    assert not scheduler.awaits_prefix(sequence(vocabulary, "c", tokens=20), 0)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(2, 900), max_size=8), budget=st.integers(0, 600))
def test_prefill_plan_keeps_the_budget_and_uses_it(vocabulary: Vocabulary, lengths: list[int], budget: int) -> None:
    slots = [Slot(i) for i in range(8)]
    scheduler = Scheduler(slots)
    for slot, length in zip(slots, lengths, strict=False):
        one = sequence(vocabulary, "", tokens=length)
        scheduler.waiting.append(one)
        give(scheduler, one, slot)
    plan = scheduler.prefill_plan(budget)
    assert sum(count for _, count in plan) == min(budget, sum(lengths))
    assert all(0 < count <= one.missing_tokens for one, count in plan)
    assert len({id(one) for one, _ in plan}) == len(plan)


def test_long_prompt_is_not_overtaken_for_ever(vocabulary: Vocabulary) -> None:
    slots = [Slot(0), Slot(1)]
    scheduler = Scheduler(slots)
    old = sequence(vocabulary, "", tokens=3000, arrived=time.monotonic() - 10)
    new = sequence(vocabulary, "", tokens=60)
    for one, slot in ((new, slots[0]), (old, slots[1])):
        scheduler.waiting.append(one)
        give(scheduler, one, slot)
    assert scheduler.prefill_plan(100)[0][0] is old


def test_prefill_budget_follows_measured_times() -> None:
    times = StepTimes(16, 512)
    assert times.prefill_budget(0, 1, 512) == 512, "nobody waits for a token"
    for _ in range(30):
        times.learn(8, 0, 0.040)
        times.learn(8, 20, 0.080)
    # Gaps of 60 ms leave 20 ms: ten tokens of 2 ms, and never fewer than some.
    assert times.prefill_budget(8, 1, 512) == LEAST_CHUNK_TOKENS
    for _ in range(60):
        times.learn(8, 20, 0.050)
    assert times.prefill_budget(8, 1, 512) == 39
    assert times.prefill_budget(8, 1, 20) == 20


def test_the_more_wait_for_their_first_token_the_longer_may_the_others_wait_for_their_next() -> None:
    times = StepTimes(16, 512)
    for _ in range(60):
        times.learn(2, 0, 0.020)
        times.learn(2, 20, 0.040)
    assert 0 < times.prefill_budget(2, 1, 2048) <= 40, "one alone has to fit in"
    assert 400 < times.prefill_budget(2, 2, 2048) < 500, "a gap of half a second"
    assert times.prefill_budget(16, 2, 2048) < 50
    assert 1400 < times.prefill_budget(2, 6, 2048) < 1500, "a gap of 1.5 seconds"
    assert 2900 < times.prefill_budget(2, 60, 4096) < 3000, "never more than 3"


def test_a_burst_begins_in_one_step_where_nobody_reads() -> None:
    times = StepTimes(16, 512)
    for _ in range(60):
        times.learn(0, 500, 0.5)
    assert times.prefill_budget(0, 1, 2048) == 512
    assert times.prefill_budget(0, 3, 2048) == 1500
    assert times.prefill_budget(0, 30, 4096) == 3000, "at most three seconds"
    for _ in range(60):
        times.learn(0, 512, 10.0)
    assert times.prefill_budget(0, 30, 2048) == 512, "however slow the model"


def test_drafts_pay_only_where_rows_are_cheap() -> None:
    times = StepTimes(16, 512)
    for _ in range(30):
        times.learn(1, 0, 0.010)
        times.learn(4, 0, 0.012)
        times.learn(8, 0, 0.030)
        times.learn(11, 0, 0.045)
    assert times.rows_pay(1, 3, 0.5)
    assert not times.rows_pay(8, 3, 0.5)
    assert not times.rows_pay(1, 3, 0.05)
