"""What the engine remembers: prefixes shared, saved, given back; and that nothing of it is lost or used twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, Generation, GenerationRequest, QueueFull
from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.step_times import StepTimes

PREFIX = list(range(1000, 1200))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(bundled_model_file(), options())
    yield engine
    engine.check()
    engine.close()


def options(**changes: Any) -> EngineOptions:
    values: dict[str, Any] = {"max_sequence_tokens": 512, "max_slots": 4, "prefix_cache_bytes": 64 << 20}
    return EngineOptions(**(values | changes))


def request(prompt: list[int], **changes: object) -> GenerationRequest:
    values: dict[str, object] = {"max_tokens": 4, "temperature": 0.0, "ignore_eos": True}
    return GenerationRequest(tuple(prompt), **(values | changes))  # pyright: ignore[reportArgumentType]


async def end(generation: Generation) -> tuple[list[int], Finish]:
    tokens: list[int] = []
    async for item in generation:
        if isinstance(item, Finish):
            return tokens, item
        tokens += item.token_ids
    raise AssertionError("no Finish")


async def first_logprob(engine: Engine, prompt: list[int]) -> tuple[int, float]:
    async for item in engine.generate(request(prompt, max_tokens=1, top_logprobs=0)):
        if not isinstance(item, Finish):
            return item.logprobs[0].token_id, item.logprobs[0].logprob
    raise AssertionError("no token")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 the engine's thread sets no event of this loop
            await asyncio.sleep(0.01)


async def test_branches_of_a_thread_compute_only_what_is_new(engine: Engine) -> None:
    trunk = [*PREFIX, 7, 8, 9]
    await end(engine.generate(request(trunk)))
    before = engine.stats().prefill_tokens_total
    _, one = await end(engine.generate(request([*trunk, *range(3000, 3010)])))
    _, other = await end(engine.generate(request([*trunk, *range(4000, 4010)])))
    assert one.cached_tokens >= len(trunk)
    assert other.cached_tokens >= len(trunk)
    assert engine.stats().prefill_tokens_total - before <= 20
    engine.check()


async def test_prefix_is_computed_once_for_all_who_come_at_once(engine: Engine) -> None:
    new = list(range(6000, 6200))
    before = engine.stats().prefill_tokens_total
    ends = await asyncio.gather(*(end(engine.generate(request([*new, 100 + i]))) for i in range(4)))
    assert sorted(finish.cached_tokens for _, finish in ends)[1:] == [200] * 3
    assert engine.stats().prefill_tokens_total - before < 220


async def test_several_answers_share_the_prompt_and_differ_by_seed(engine: Engine) -> None:
    before = engine.stats().prefill_tokens_total
    wanted = request(list(range(7000, 7200)), temperature=1.0, top_k=0, top_p=1.0, seed=5, max_tokens=8)
    answers = await asyncio.gather(*map(end, engine.generate_several(wanted, 3)))
    assert engine.stats().prefill_tokens_total - before < 220
    assert len({tuple(tokens) for tokens, _ in answers}) == 3


async def test_prompt_that_was_asked_before_gets_its_first_token_without_a_step(engine: Engine) -> None:
    prompt = list(range(12_000, 12_100))
    answer, first = await end(engine.generate(request(prompt)))
    steps = engine.stats().steps_total
    again, finish = await end(engine.generate(request(prompt)))
    assert (again, finish.cached_tokens, first.cached_tokens) == (answer, 100, 0)
    assert engine.stats().steps_total == steps + 3
    one, finish = await end(engine.generate(request(prompt, max_tokens=1)))
    assert (one, finish.reason, finish.prompt_tokens, finish.completion_tokens) == (answer[:1], "length", 100, 1)
    assert engine.stats().steps_total == steps + 3
    wanted = [request(prompt, max_tokens=1, temperature=2.0, top_k=0, top_p=1.0, seed=seed) for seed in range(8)]
    drawn = await asyncio.gather(*(end(engine.generate(each)) for each in wanted))
    assert len({tuple(tokens) for tokens, _ in drawn}) > 1, "each draws for itself"
    schema = {"type": "integer"}
    number, _ = await end(engine.generate(request(prompt, json_schema=schema, max_tokens=1)))
    assert engine.vocabulary.text(number[0]).strip() in {"-", *"0123456789"}
    engine.check()


async def test_token_after_a_known_prompt_that_ends_the_answer_is_not_part_of_it(engine: Engine) -> None:
    [one], _ = await end(engine.generate(request(PREFIX, max_tokens=1)))
    stop = engine.vocabulary.text(one)
    again, finish = await end(engine.generate(request(PREFIX, stop=(stop,))))
    assert (again, finish.reason, finish.stop_string) == ([], "stop", stop)


async def test_prompts_of_unequal_length_in_one_step_are_evened_and_each_is_what_it_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = Engine(bundled_model_file(), options())
    # Below 64 tokens: from there on flash attention rounds otherwise.
    prompts = [list(range(4000 + 300 * i, 4000 + 300 * i + length)) for i, length in enumerate((52, 55, 57, 60))]
    try:
        alone = [await first_logprob(small, prompt) for prompt in prompts]
        await asyncio.wrap_future(small._worker.call(small._stepper.cache.clear))
        before = small.stats()
        monkeypatch.setattr(StepTimes, "rows_of_a_reading", lambda self: 100.0)
        # All are there before the first is begun.
        begin = threading.Event()
        small._worker.call(begin.wait)
        tasks = [asyncio.create_task(first_logprob(small, prompt)) for prompt in prompts]
        await until(lambda: small.stats().waiting == 4)
        begin.set()
        for (token, logprob), (expected, wanted) in zip(await asyncio.gather(*tasks), alone, strict=True):
            assert token == expected
            assert logprob == pytest.approx(wanted, abs=0.02)
        after = small.stats()
        assert after.padding_rows_total - before.padding_rows_total == 8 + 5 + 3
        assert after.prefill_tokens_total - before.prefill_tokens_total == 52 + 55 + 57 + 60
        small.check()
        # What comes after them goes on where they ended, not where the longest did.
        goes_on = [await first_logprob(small, [*prompt, 5, 6]) for prompt in prompts]
        small.check()
        await asyncio.wrap_future(small._worker.call(small._stepper.cache.clear))
        for (token, logprob), prompt in zip(goes_on, prompts, strict=True):
            expected, wanted = await first_logprob(small, [*prompt, 5, 6])
            assert (token, logprob) == (expected, pytest.approx(wanted, abs=0.02))
    finally:
        small.close()


async def test_a_slot_is_usable_after_a_step_that_failed_halfway() -> None:
    small = Engine(bundled_model_file(), options(max_slots=1))
    stepper = small._stepper
    [slot] = stepper.slots

    def half_a_step() -> None:
        # Cells were computed of which the slot was not told.
        batch = Batch(8, 1)
        batch.add(slot.id, [1, 2, 3], len(slot.tokens), 0)
        assert llama.llama_decode(small._context, batch.struct) == 0
        stepper.cache.forget(slot)

    try:
        answer, _ = await end(small.generate(request(PREFIX)))
        await asyncio.wrap_future(small._worker.call(half_a_step))
        small.check()
        await asyncio.wrap_future(small._worker.call(half_a_step))
        small.check()
        again, finish = await end(small.generate(request(PREFIX)))
        assert (again, finish.cached_tokens) == (answer, 0)
    finally:
        small.close()


async def test_conversation_outlives_the_slots_and_is_not_computed_again(engine: Engine) -> None:
    thread = list(range(8000, 8200))
    await end(engine.generate(request(thread)))
    for other in range(8):  # twice as many as there are slots
        await end(engine.generate(request(list(range(9000 + 300 * other, 9100 + 300 * other)))))
    _, finish = await end(engine.generate(request([*thread, 5])))
    assert finish.cached_tokens == 200
    engine.check()


async def test_engine_that_rests_finds_out_that_its_cache_is_wrong_and_empties_it() -> None:
    small = Engine(bundled_model_file(), options(max_slots=1))
    try:
        answer, _ = await end(small.generate(request(PREFIX)))
        [slot] = small._stepper.slots
        slot.tokens.append(1)  # a token whose KV nobody computed
        await until(lambda: not slot.tokens)
        again, finish = await end(small.generate(request(PREFIX)))
        assert (again, finish.cached_tokens) == (answer, 0)
        small.check()
    finally:
        small.close()


async def test_prefix_cache_keeps_its_limit() -> None:
    small = Engine(bundled_model_file(), options(max_slots=1, prefix_cache_bytes=6 << 20))
    try:
        for other in range(6):
            await end(small.generate(request(list(range(9000 + 300 * other, 9100 + 300 * other)))))
            assert small.stats().prefix_cache_bytes <= 6 << 20
        assert small.stats().prefix_cache_bytes > 0
        small.check()
    finally:
        small.close()


async def test_many_users_share_the_slots_and_nobody_notices_a_preemption() -> None:
    small = Engine(bundled_model_file(), options(max_slots=2))
    try:
        long = [small.generate(request(list(range(i, i + 50)), max_tokens=400, user="many")) for i in (10, 20)]
        tasks = [asyncio.create_task(end(generation)) for generation in long]
        await until(lambda: small.stats().decode_tokens_total >= 10)
        _, finish = await end(small.generate(request(list(range(500, 550)), user="other")))
        assert finish.reason == "length"
        assert small.stats().preemptions_total == 1
        for (tokens, finish), first in zip(await asyncio.gather(*tasks), (10, 20), strict=True):
            assert (finish.reason, len(tokens)) == ("length", 400)
            alone, _ = await end(small.generate(request(list(range(first, first + 50)), max_tokens=40, user="alone")))
            assert tokens[:10] == alone[:10]
        small.check()
    finally:
        small.close()


async def test_warm_prefixes_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "prefixes" / "model.kv"
    thread = list(range(8000, 8200))
    first = Engine(bundled_model_file(), options())
    try:
        assert first.load_prefixes(file) == 0
        await end(first.generate(request(thread)))
        assert first.save_prefixes(file, 32 << 20) == 1
        assert first.save_prefixes(tmp_path / "none.kv", 1000) == 0
        answer, _ = await end(first.generate(request(thread, max_tokens=8)))
    finally:
        first.close()
    assert file.stat().st_mode & 0o077 == 0, "nobody else may read it"
    second = Engine(bundled_model_file(), options())
    try:
        damaged = tmp_path / "damaged.kv"
        damaged.write_bytes(file.read_bytes()[:-50])
        assert second.load_prefixes(damaged) == 0
        assert second.load_prefixes(file) == 1
        again, finish = await end(second.generate(request(thread, max_tokens=8)))
        assert finish.cached_tokens == 199
        assert again == answer
        second.check()
    finally:
        second.close()


async def test_storm_of_cancels_leaves_the_engine_well(engine: Engine) -> None:
    chance = random.Random(1)

    async def leave_early(i: int) -> None:
        generation = engine.generate(request([*PREFIX[: chance.randrange(1, 200)], i + 1], max_tokens=200))
        if chance.random() < 0.5:
            generation.cancel()
        async for item in generation:
            if isinstance(item, Finish) or chance.random() < 0.3:
                generation.cancel()

    await asyncio.gather(*map(leave_early, range(100)))
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    engine.check()


async def test_a_thousand_random_requests_leave_the_memory_as_it_was() -> None:
    small = Engine(bundled_model_file(), options(max_slots=8, max_sequence_tokens=128, prefix_cache_bytes=16 << 20))
    chance = random.Random(2)

    async def client(number: int) -> None:
        for _ in range(50):
            # Some are asked again and again.
            rest = chance.choice([[5000, 5001], [chance.randrange(1000, 40000) for _ in range(2)]])
            prompt = [*PREFIX[: chance.randrange(30)], *rest]
            wanted = request(
                prompt,
                temperature=chance.choice([0.0, 0.8]),
                max_tokens=chance.randrange(1, 4),
                ignore_eos=False,
                user=str(number % 5),
            )
            generation = small.generate(wanted)
            if chance.random() < 0.1:
                generation.cancel()
            tokens, finish = await end(generation)
            assert finish.reason in ("stop", "length", "cancelled")
            assert finish.completion_tokens >= len(tokens)

    try:
        await asyncio.gather(*map(client, range(20)))
        stats = small.stats()
        assert (stats.running, stats.waiting, stats.failed_steps_total) == (0, 0, 0)
        assert stats.finished_total == 1000
        small.check()
    finally:
        small.close()


async def test_queue_that_is_full_says_when_to_come_again() -> None:
    small = Engine(bundled_model_file(), options(max_slots=1, max_queue=3))
    try:
        generations = [small.generate(request(PREFIX, max_tokens=100)) for _ in range(3)]
        with pytest.raises(QueueFull) as refused:
            generations.extend(small.generate(request(PREFIX)) for _ in range(5))
        assert refused.value.retry_after_seconds >= 1
        for generation in generations:
            generation.cancel()
        for generation in generations:
            await end(generation)
        assert (await end(small.generate(request(PREFIX))))[1].reason == "length"
    finally:
        small.close()


async def test_long_prompt_is_computed_beside_the_answers_that_run() -> None:
    engine = Engine(bundled_model_file(), options(max_sequence_tokens=2048, max_slots=3, prefix_cache_bytes=512 << 20))
    long = [*PREFIX, *(2000 + i for i in range(800))]
    in_steps = Engine(bundled_model_file(), options(max_sequence_tokens=2048, max_slots=1, prefix_cache_bytes=0))
    try:
        alone = await first_logprob(in_steps, long)
        await end(engine.generate(request([*reversed(PREFIX)])))
        assert engine.stats().aside_tokens_total == 0, "nobody had to be kept waiting"
        running = asyncio.create_task(end(engine.generate(request(list(range(20)), max_tokens=1900))))
        await until(lambda: engine.stats().decode_tokens_total > 10)
        before = engine.stats()
        # Two answers to one prompt, which is computed once.
        answers = [asyncio.create_task(end(one)) for one in engine.generate_several(request(long), 2)]
        await until(lambda: engine.stats().aside_tokens_total > 0)
        after = engine.stats()
        assert after.decode_tokens_total - before.decode_tokens_total > 20, "the running answer went on"
        for answer in answers:
            tokens, _ = await answer
            assert len(tokens) == 4
        done = engine.stats()
        assert done.aside_tokens_total == len(long) - 1
        assert done.prefill_tokens_total - before.prefill_tokens_total < len(long) + 10
        assert not running.done()
        # What the lane has computed is as good as what the steps do.
        token, logprob = await first_logprob(engine, long)
        assert (token, logprob) == (alone[0], pytest.approx(alone[1], abs=0.05))
        assert engine.stats().prefill_tokens_total - done.prefill_tokens_total < 10
    finally:
        engine.close()
        in_steps.close()
    await running


async def test_long_prompt_that_is_given_up_leaves_no_trace() -> None:
    engine = Engine(bundled_model_file(), options(max_sequence_tokens=4096, max_slots=3, prefix_cache_bytes=512 << 20))
    running = asyncio.create_task(end(engine.generate(request(list(range(20)), max_tokens=3000))))
    await until(lambda: engine.stats().decode_tokens_total > 5)
    for start in (5000, 6000):
        given_up = engine.generate(request([*range(start, start + 2000)]))
        await until(lambda: engine.stats().waiting == 1)
        given_up.cancel()
        _, finish = await end(given_up)
        assert finish.reason == "cancelled"
    tokens, _ = await end(engine.generate(request([*range(7000, 7700)])))
    assert len(tokens) == 4
    engine.check()
    closed = engine.generate(request([*range(9000, 11000)]))
    await until(lambda: engine.stats().waiting == 1)
    engine.close()
    assert (await end(closed))[1].reason == "error"
    await running


async def test_long_prompt_without_a_prefix_cache_is_computed_in_the_steps() -> None:
    engine = Engine(bundled_model_file(), options(max_sequence_tokens=1024, prefix_cache_bytes=0))
    running = asyncio.create_task(end(engine.generate(request(list(range(20)), max_tokens=900))))
    await until(lambda: engine.stats().decode_tokens_total > 5)
    tokens, _ = await end(engine.generate(request([*range(5000, 5700)])))
    assert len(tokens) == 4
    assert engine.stats().aside_tokens_total == 0
    engine.close()
    await running
