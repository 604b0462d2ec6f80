"""Order and paging of trees and of thread lists, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from db.errors import RefusedError
from tests.integration.conftest import Store

# Parent of each message that follows the root, by its number: single, double, deep, zigzag, wide, two levels wide.
SHAPES = {
    "single": [],
    "double": [0],
    "deep": [0, 1, 2, 3, 4, 5, 6, 7],
    "zigzag": [0, 0, 1, 0, 2, 1, 5, 3],
    "wide": [0] * 30,
    "fanout": [0] * 5 + [1, 2, 3, 4, 5] * 4,
}


async def grow(store: Store, parents: list[int]) -> tuple[str, list[list[int]]]:
    """A thread of people's messages of this shape: its root and the paths in order of making."""
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await store.settings(ann, conversation, reply_mode="never")
    root = (await store.post(ann, conversation, "0"))["message_id"]
    ids, paths, children = [root], [[1]], [0]
    for number, parent in enumerate(parents, 1):
        ids.append((await store.reply(ann, ids[parent], str(number)))["message_id"])
        children[parent] += 1
        children.append(0)
        paths.append([*paths[parent], children[parent]])
    return root, paths


async def pages(store: Store, root: str, mark: str, step: str, limit: int) -> list[list[dict[str, Any]]]:
    """All pages of a thread: forwards from its beginning by next_after, backwards from its last message, which is left
    out, by previous_before."""
    found: list[list[dict[str, Any]]] = []
    place: UUID | None = None
    if step == "before":
        place = UUID((await store.tree(store.sessions["ann"], root))["messages"][-1]["id"])
    while True:
        page = await store.tree(store.sessions["ann"], root, **{step: place}, limit=limit)
        found.append(page["messages"])
        if page[mark] is None:
            return found
        place = UUID(page[mark])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_tree_is_read_depth_first_both_ways(store: Store, shape: str, limit: int) -> None:
    root, paths = await grow(store, SHAPES[shape])
    forwards = await pages(store, root, "next_after", "after", limit)
    backwards = await pages(store, root, "previous_before", "before", limit)
    assert [m["path"] for page in forwards for m in page] == sorted(paths)
    assert [m["path"] for page in reversed(backwards) for m in page] == sorted(paths)[:-1]
    assert all(len(page) <= limit for page in (*forwards, *backwards))
    assert all(forwards)


async def test_mark_of_another_thread_is_refused(store: Store) -> None:
    root, _ = await grow(store, SHAPES["zigzag"])
    other, _ = await grow(store, SHAPES["zigzag"])
    with pytest.raises(RefusedError) as refused:
        await store.tree(store.sessions["ann"], root, after=UUID(other))
    assert refused.value.status == 400


async def test_messages_are_numbered_in_the_order_of_making(store: Store) -> None:
    root, _ = await grow(store, SHAPES["zigzag"])
    messages = (await store.tree(store.sessions["ann"], root))["messages"]
    assert all(message["seq"] == int(message["content"]) + 1 for message in messages)


async def test_threads_are_listed_by_latest_activity_page_by_page(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    roots = [(await store.post(ann, conversation, f"thread {number}"))["root_id"] for number in range(7)]
    await store.reply(ann, roots[2], "again")
    expected = [roots[2], *(root for root in reversed(roots) if root != roots[2])]
    found: list[str] = []
    at, root = None, None
    while True:
        page = await store.call("list_threads", ann, conversation, at, root, 2)
        found += [thread["root_id"] for thread in page["threads"]]
        if page["next_before"] is None:
            break
        instant, _, last = page["next_before"].partition(",")
        at, root = datetime.fromisoformat(instant), UUID(last)
    assert found == expected


async def test_end_of_an_answer_moves_its_thread_up(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    older = await store.post(ann, conversation, "one")
    await store.post(ann, conversation, "two")
    await store.answer(older)
    threads = (await store.call("list_threads", ann, conversation, None, None, 10))["threads"]
    assert threads[0]["root_id"] == older["root_id"]
    assert threads[0]["message_count"] == 2


async def test_posts_at_once_keep_offsets_and_numbers_gapless(store: Store) -> None:
    ann = store.sessions["ann"]
    conversation = await store.conversation(ann)
    await asyncio.gather(*(store.post(ann, conversation, str(number)) for number in range(20)))
    events = await store.events(conversation)
    assert [offset for offset, _, _ in events] == list(range(1, len(events) + 1))
    numbers = [payload["message"]["seq"] for _, kind, payload in events if kind == "message.created"]
    assert numbers == list(range(1, 41))
