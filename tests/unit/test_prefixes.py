"""Prompts that begin alike have the same first hashes, in every process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from deployments.generation import Ask, Function, Tools
from deployments.prefixes import BLOCK_BYTES, MOST_BLOCKS, Prefix

SYSTEM = {"role": "system", "content": "You are terse. " * 20}
QUESTION = {"role": "user", "content": "What is a lighthouse? " * 20}
ANSWER = {"role": "assistant", "content": "A tower with a lamp. " * 20}

texts = st.text(max_size=600)
said = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts})


def shared(a: Prefix, b: Prefix) -> int:
    """Leading blocks that both have."""
    return next((i for i, (x, y) in enumerate(zip(a.blocks, b.blocks, strict=False)) if x != y), -1)


def of(*messages: dict[str, Any], **more: Any) -> Prefix:
    return Prefix.of_ask(Ask(messages=messages, **more))


def test_a_conversation_that_goes_on_keeps_its_thread_and_its_blocks() -> None:
    before, after = of(SYSTEM, QUESTION), of(SYSTEM, QUESTION, ANSWER, QUESTION)
    assert len(after.blocks) > len(before.blocks) > 2
    assert after.blocks[: len(before.blocks)] == before.blocks
    assert after.thread == before.thread


def test_conversations_with_one_system_message_share_its_blocks_but_not_the_thread() -> None:
    one, other = of(SYSTEM, QUESTION), of(SYSTEM, ANSWER | {"role": "user"})
    assert shared(one, other) == len(SYSTEM["content"]) // BLOCK_BYTES
    assert one.thread != other.thread


def test_tools_are_part_of_the_beginning() -> None:
    tools = Tools((Function("look", "Looks.", {"type": "object"}),))
    assert shared(of(SYSTEM, QUESTION), of(SYSTEM, QUESTION, tools=tools)) == 0


def test_a_change_in_a_message_changes_all_blocks_from_there_on() -> None:
    changed = of(SYSTEM, QUESTION | {"content": "Why? " + QUESTION["content"]}, ANSWER)
    original = of(SYSTEM, QUESTION, ANSWER)
    place = shared(original, changed)
    assert place > 0
    assert not set(original.blocks[place:]) & set(changed.blocks[place:])


def test_threads_of_the_database_are_told_apart_by_their_root() -> None:
    one, other = Prefix.of_thread(UUID(int=1)), Prefix.of_thread(UUID(int=2))
    assert one == Prefix.of_thread(UUID(int=1))
    assert one.blocks
    assert set(one.blocks).isdisjoint(other.blocks)


def test_hashes_are_the_same_in_another_process() -> None:
    code = (
        "from deployments.generation import Ask; from deployments.prefixes import Prefix;"
        f"print(Prefix.of_ask(Ask(messages=({SYSTEM!r}, {QUESTION!r}))))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == repr(of(SYSTEM, QUESTION))


@given(st.lists(said, max_size=6), st.lists(said, max_size=3))
def test_what_is_added_changes_no_block_before_it(messages: list[dict[str, str]], more: list[dict[str, str]]) -> None:
    before, after = of(*messages), of(*messages, *more)
    assert after.blocks[: len(before.blocks)] == before.blocks


@given(st.text() | st.lists(st.integers(-(2**70), 2**70)))
def test_any_raw_prompt_has_a_prefix(prompt: str | list[int]) -> None:
    ask = Ask(text=prompt) if isinstance(prompt, str) else Ask(token_ids=tuple(prompt))
    assert Prefix.of_ask(ask).thread


def test_a_lone_surrogate_is_no_fault() -> None:
    assert of({"role": "user", "content": "\ud800" * BLOCK_BYTES}).blocks


def test_a_prompt_of_any_length_has_a_bounded_number_of_blocks() -> None:
    assert len(Prefix.of_ask(Ask(text="word " * 100_000)).blocks) == MOST_BLOCKS
