"""Full-text search over one's own messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from db.queries import QUERIES
from tests.integration.browser import Browser, browser
from tests.integration.conftest import HOUR, Store

BEGIN, END = "\ue000", "\ue001"


@pytest.fixture(scope="module")
async def ann(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ann") as opened:
        yield opened


@pytest.fixture
async def conversation(store: Store) -> UUID:
    """A new conversation of Ann's."""
    return await store.conversation(store.sessions["ann"])


async def say(store: Store, conversation: UUID, *contents: str, name: str = "ann") -> list[str]:
    """Posts threads; the messages' ids."""
    session = store.sessions[name]
    return [(await store.post(session, conversation, content))["message_id"] for content in contents]


async def find(host: Browser, query: str, conversation: UUID | None = None, limit: int = 20) -> list[dict[str, Any]]:
    """Everything that a query finds, page by page."""
    parameters: dict[str, Any] = {"query": query, "limit": limit}
    if conversation:
        parameters["conversation_id"] = str(conversation)
    found: list[dict[str, Any]] = []
    while True:
        answer = await host.http.get("/api/search", params=parameters)
        assert answer.status_code == 200, answer.text
        found += answer.json()["results"]
        if answer.json()["next_after"] is None:
            return found
        parameters["after"] = answer.json()["next_after"]


async def found(host: Browser, query: str, conversation: UUID) -> list[str]:
    """Ids of what a query finds in a conversation."""
    return [item["message_id"] for item in await find(host, query, conversation)]


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("The quick brown fox", "fox"),
        ("The quick brown fox", "QUICK fox"),
        ("The quick brown fox", '"quick brown"'),
        ("The quick brown fox", "wolf or fox"),
        ("The quick brown fox", "fox -wolf"),
        ("The quick brown fox", "bro"),  # the last word may be the beginning of one
        ("The quick brown fox", "quick bro"),
        ("Wir haben Ärger mit der Straße", "ärger"),
        ("Wir haben Ärger mit der Straße", "STRASSE or ÄRGER"),
        ("Привет, мир", "мир"),
        ("ΚΑΛΗΜΕΡΑ κόσμε", "καλημερα"),
        ("我喜欢吃苹果。", "苹果"),
        ("昨日は東京タワーに行きました", "東京"),
        ("ฉันชอบกินข้าว", "กินข้าว"),
        ("나는 학교에 간다", "학교"),
        ("My 中文 is rusty", "中文 rusty"),
        ("See https://example.org/a/b?c=d for it", "example.org"),
        ("call foo_bar(1)", "foo_bar"),
        ("it's here", "it's"),
    ],
)
async def test_word_is_found_in_any_language(
    store: Store, ann: Browser, conversation: UUID, content: str, query: str
) -> None:
    [message] = await say(store, conversation, content)
    await say(store, conversation, "something else")
    assert await found(ann, query, conversation) == [message]


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("The quick brown fox", "wolf"),
        ("The quick brown fox", '"brown quick"'),
        ("The quick brown fox", "fox -quick"),
        ("The quick brown fox", "bro fox"),
        ("The quick brown fox", '"bro"'),
        ("The quick brown fox", "bro "),
        ("苹是果", "苹果"),
    ],
)
async def test_what_was_not_said_is_not_found(
    store: Store, ann: Browser, conversation: UUID, content: str, query: str
) -> None:
    await say(store, conversation, content)
    assert await found(ann, query, conversation) == []


async def test_word_to_be_absent_is_taken_as_it_is(store: Store, ann: Browser, conversation: UUID) -> None:
    [message] = await say(store, conversation, "one browser")
    assert await found(ann, "one -brow", conversation) == [message]


async def test_more_of_it_comes_first_then_the_newest(store: Store, ann: Browser, conversation: UUID) -> None:
    once, most, again = await say(store, conversation, "tea for one", "tea tea tea", "tea for two")
    assert await found(ann, "tea", conversation) == [most, again, once]


async def test_pages_have_each_result_once(store: Store, ann: Browser, conversation: UUID) -> None:
    messages = await say(store, conversation, *(f"{'pear ' * (number % 3 + 1)} {number}" for number in range(11)))
    whole = await find(ann, "pear", conversation)
    assert sorted(item["message_id"] for item in whole) == sorted(messages)
    assert await find(ann, "pear", conversation, limit=2) == whole


async def test_what_is_posted_between_pages_moves_none(store: Store, ann: Browser, conversation: UUID) -> None:
    messages = await say(store, conversation, *(f"plum {number}" for number in range(4)))
    path = f"/api/search?query=plum&conversation_id={conversation}&limit=2"
    first = await ann.call("GET", path)
    await say(store, conversation, "plum plum", "plum 5")
    second = await ann.call("GET", f"{path}&after={first['next_after']}")
    assert [item["message_id"] for item in (*first["results"], *second["results"])] == messages[::-1]


async def test_answers_are_found_once_they_are_complete(store: Store, ann: Browser, conversation: UUID) -> None:
    posted = await store.ask(store.sessions["ann"], conversation)
    [claim] = await store.claim("replica", posted["assistant_message_id"])
    await store.append(claim, 0, "A wombat.")
    assert await found(ann, "wombat", conversation) == []
    await store.finish(claim)
    [result] = await find(ann, "wombat", conversation)
    assert (result["message_id"], result["role"], result["author_name"]) == (claim["message_id"], "assistant", None)


async def test_edited_message_is_found_by_what_it_says_now(store: Store, ann: Browser, conversation: UUID) -> None:
    [message] = await say(store, conversation, "about lemons")
    await store.call("edit", store.sessions["ann"], HOUR, UUID(message), "about limes", None)
    assert await found(ann, "lemons", conversation) == []
    assert await found(ann, "limes", conversation) == [message]


async def test_deleted_messages_and_conversations_are_left_out(store: Store, ann: Browser, conversation: UUID) -> None:
    word, session = f"w{uuid4().hex}", store.sessions["ann"]
    [message] = await say(store, conversation, word)
    assert [item["message_id"] for item in await find(ann, word)] == [message]
    await store.call("delete_message", session, HOUR, UUID(message))
    assert await find(ann, word) == []
    await store.call("restore", session, HOUR, UUID(message))
    assert [item["message_id"] for item in await find(ann, word)] == [message]
    await store.call("delete_conversation", session, conversation)
    assert await find(ann, word) == []
    await ann.refused(403, "GET", f"/api/search?query={word}&conversation_id={conversation}")


async def test_others_conversations_are_not_searched(store: Store, ann: Browser) -> None:
    word, ben = f"w{uuid4().hex}", store.sessions["ben"]
    place = await store.conversation(ben)
    [message] = await say(store, place, word, name="ben")
    assert await find(ann, word) == []
    await ann.refused(403, "GET", f"/api/search?query={word}&conversation_id={place}")
    ann_id = await store.user_id(store.sessions["ann"])
    await store.call("add_participant", ben, None, place, ann_id, "viewer")
    assert [item["message_id"] for item in await find(ann, word)] == [message]
    await store.call("remove_participant", ben, place, ann_id)
    assert await find(ann, word) == []


async def test_snippet_marks_what_was_found_and_nothing_else(store: Store, ann: Browser, conversation: UUID) -> None:
    content = f"before {BEGIN}the{END} <b>needle</b> \x01 after"
    await say(store, conversation, content)
    [result] = await find(ann, "needle", conversation)
    assert f"{BEGIN}needle{END}" in result["snippet"]
    assert result["snippet"].count(BEGIN) == result["snippet"].count(END) == 1
    assert "\x01" not in result["snippet"]
    assert result["thread_title"] is None
    assert result["conversation_title"] == "Tests"


async def test_snippet_of_a_script_without_spaces_reads_as_it_was_written(
    store: Store, ann: Browser, conversation: UUID
) -> None:
    await say(store, conversation, "我喜欢吃苹果。")
    [result] = await find(ann, "苹果", conversation)
    assert result["snippet"].replace(BEGIN, "").replace(END, "").rstrip("。") == "我喜欢吃苹果"
    assert f"{BEGIN}苹{END}{BEGIN}果{END}" in result["snippet"]


async def test_snippet_is_short(store: Store, ann: Browser, conversation: UUID) -> None:
    await say(store, conversation, "word " * 15_000 + "needle " + "word " * 4_000)
    [result] = await find(ann, "needle", conversation)
    assert f"{BEGIN}needle{END}" in result["snippet"]
    assert len(result["snippet"]) < 400


@pytest.mark.parametrize("query", ["", "  ", "-fox", "!?", '""', "-fox -wolf"])
async def test_query_without_a_word_is_400(ann: Browser, query: str) -> None:
    answer = await ann.http.get("/api/search", params={"query": query})
    assert (answer.status_code, answer.json()["code"]) == (400, "RGP.VALIDATION")


@pytest.mark.parametrize(
    "query", ["'", "a' | !b", "\\", "a:*", "(((", '"', "a <-> b", "a & ", ":*", "%", "or", "or or", "-", "\x01", "é'"]
)
async def test_no_query_breaks_the_search(ann: Browser, query: str) -> None:
    answer = await ann.http.get("/api/search", params={"query": query})
    assert answer.status_code in (200, 400), answer.text


async def test_page_mark_of_another_kind_is_400(ann: Browser) -> None:
    for mark in ("x", "nan,2020-01-01T00:00:00Z," + str(uuid4()), "1,2020-01-01T00:00:00Z,x", "1e99,,"):
        answer = await ann.http.get("/api/search", params={"query": "a", "after": mark})
        assert answer.status_code == 400, answer.text


async def test_longest_message_can_be_kept_and_found(store: Store, ann: Browser, conversation: UUID) -> None:
    """A tsvector holds less than 1 MiB; these are the texts that come nearest."""
    letters = [chr(0x20000 + number) for number in range(40_000)]
    hyphened = " ".join(f"{chr(0x1E900 + n % 34)}{n:x}-{chr(0x1E900 + n % 31)}{n:x}" for n in range(8_000))
    digits = " ".join(f"{number:x}" for number in range(30_000))
    hosts = " ".join(f"a{number:x}.example.org/p{number:x}" for number in range(5_000))
    for content in ("".join(letters), "".join(letters[:20_000]) * 5, hyphened, digits, hosts):
        await say(store, conversation, "needle " + content[: 100_000 - 7])
    assert len(await found(ann, "needle", conversation)) == 5


async def test_rare_word_is_found_by_the_index(
    store: Store, ann: Browser, conversation: UUID, superuser: asyncpg.Connection
) -> None:
    """Among many messages, without reading them all."""
    await superuser.execute(
        """
        insert into rustygpt.messages (id, conversation_id, root_id, author_id, role, state, content, path, seq)
        select id, $1, id, $2, 'user', 'done', 'filler ' || n || case n when 777 then ' rarity' else '' end,
               array[100000 + n], 100000 + n
          from generate_series(1, 20000) n, lateral (select gen_random_uuid() as id where n > 0) made
        """,
        conversation,
        await store.user_id(store.sessions["ann"]),
    )
    await superuser.execute("vacuum analyze rustygpt.messages")
    query = (QUERIES["search"], store.sessions["ann"], "rarity", None, None, None, None, 20)
    counts = """
        select seq_scan as scans, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows
          from pg_stat_xact_user_tables where schemaname = 'rustygpt' and relname = 'messages'
    """
    async with superuser.transaction():
        [before] = await superuser.fetch(counts)
        results = orjson.loads(await superuser.fetchval(*query))["results"]
        [after] = await superuser.fetch(counts)
    assert len(results) == 1
    assert after["scans"] == before["scans"]
    assert after["rows"] - before["rows"] < 20
