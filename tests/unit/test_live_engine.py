"""An engine takes another's place while answers are being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest
from deployments.model.live_engine import LiveEngine

OPTIONS = EngineOptions(max_sequence_tokens=256, max_slots=2)


@pytest.fixture
async def live() -> AsyncIterator[LiveEngine]:
    live = LiveEngine(Engine(bundled_model_file(), OPTIONS))
    yield live
    live.current.close()


async def answer(live: LiveEngine, begun: asyncio.Event) -> tuple[Engine, Finish]:
    with live.use() as engine:
        request = GenerationRequest(tuple(engine.tokenize("Once upon a time")), max_tokens=60, ignore_eos=True)
        async for item in engine.generate(request):
            begun.set()
            if isinstance(item, Finish):
                return engine, item
    raise AssertionError


async def closed(engine: Engine) -> None:
    async with asyncio.timeout(20):
        while engine.alive:  # noqa: ASYNC110 an engine tells nobody that it has closed
            await asyncio.sleep(0.01)


async def test_an_answer_ends_on_the_engine_that_it_began_with(live: LiveEngine) -> None:
    old, begun = live.current, asyncio.Event()
    writing = asyncio.create_task(answer(live, begun))
    await begun.wait()
    live.replace(Engine(bundled_model_file(), OPTIONS))
    assert old.alive
    engine, finish = await writing
    assert engine is old
    assert (finish.reason, finish.completion_tokens) == ("length", 60)
    await closed(old)


async def test_who_comes_later_gets_the_new_engine(live: LiveEngine) -> None:
    old = live.current
    live.replace(Engine(bundled_model_file(), OPTIONS))
    engine, finish = await answer(live, asyncio.Event())
    assert engine is live.current
    assert finish.reason == "length"
    await closed(old)


async def test_the_first_user_is_told_of_before_anything_is_computed(live: LiveEngine) -> None:
    calls: list[float] = []
    live.when_used.append(lambda: calls.append(live.idle_seconds))
    await asyncio.gather(answer(live, asyncio.Event()), answer(live, asyncio.Event()))
    assert len(calls) == 1
    assert live.idle_seconds > 0
    with live.use():
        assert live.idle_seconds == 0
