"""Completions of several prompts from what a model made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from deployments.gateway.v1.completions.encode import CompletionFold
from deployments.gateway.v1.completions.routes import joined
from deployments.generation import Ended, Item, Piece


async def made(items: Sequence[Item]) -> AsyncGenerator[list[Item], None]:
    for item in items:
        yield [item]


async def test_answers_to_several_prompts_are_told_apart() -> None:
    sources = [
        made([Piece(1, text), Ended(1, "stop", 3, 2, 0), Ended(0, "length", 3, 1, 0)]) for text in ("one", "two")
    ]
    fold = CompletionFold({"id": "cmpl-1"}, ["", "2: "], 2, False, False, ())
    async for batch in joined(sources, 2):
        fold.feed(batch)
    whole = fold.whole()
    assert [choice["text"] for choice in whole["choices"]] == ["", "one", "2: ", "2: two"]
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["length", "stop"] * 2
    assert whole["usage"]["total_tokens"] == 2 * 3 + 2 * (2 + 1)


async def test_whatever_breaks_off_one_answer_ends_all() -> None:
    closed: list[str] = []

    async def endless() -> AsyncGenerator[list[Item], None]:
        try:
            while True:
                await asyncio.sleep(0.01)
                yield [Piece(0, "more")]
        finally:
            closed.append("endless")

    async def broken() -> AsyncGenerator[list[Item], None]:
        yield [Piece(0, "some")]
        raise ZeroDivisionError

    async def read() -> None:
        async for _ in joined([endless(), broken()], 1):
            pass

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(read(), 5)
    assert closed == ["endless"]
