"""Weights in huge pages: they lie in them, and say what mapped ones say. Memory that nobody touched stays away."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest

from deployments.config import bundled_model_file
from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest
from deployments.model.engine.huge_pages import has_huge_pages, huge_pages


def huge_bytes() -> int:
    """What this process has in huge pages."""
    found = re.findall(r"^AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps").read_text(), re.MULTILINE)
    return sum(map(int, found)) << 10


async def answer(engine: Engine) -> list[int]:
    prompt = engine.render_chat([{"role": "user", "content": "What is the capital of France?"}])
    tokens: list[int] = []
    async for item in engine.generate(GenerationRequest(tuple(prompt), max_tokens=16, temperature=0)):
        tokens += () if isinstance(item, Finish) else item.token_ids
    return tokens


@pytest.mark.skipif(not has_huge_pages(), reason="the kernel gives no huge pages")
async def test_weights_lie_in_huge_pages_and_say_the_same() -> None:
    answers: list[list[int]] = []
    for wanted in (False, True):
        before = huge_bytes()
        engine = Engine(bundled_model_file(), EngineOptions(max_slots=16, huge_pages=wanted))
        gained = huge_bytes() - before
        answers.append(await answer(engine))
        engine.close()
        assert (gained > bundled_model_file().stat().st_size * 0.8) is wanted
    assert answers[0] == answers[1]


@pytest.mark.skipif(not has_huge_pages(), reason="the kernel gives no huge pages")
def test_memory_that_is_used_in_part_is_moved_as_far_as_it_is_used() -> None:
    before = huge_bytes()
    with huge_pages(True):
        memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE)
        memory[32 << 20 :] = bytes(32 << 20)
    gained = huge_bytes() - before
    memory.close()
    assert 28 << 20 <= gained <= 34 << 20
