"""Conversations as files: what is exported can be imported, and is the same."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deployments.gateway.transfer.export import Writer, write_file
from deployments.gateway.transfer.json_file import JsonWriter
from deployments.gateway.transfer.markdown_file import MarkdownWriter, open_fence
from tests.integration.browser import Browser, browser
from tests.integration.conftest import HOUR, Store

TYPES = {"json": "application/json", "markdown": "text/markdown"}
FORMATS = pytest.mark.parametrize("kind", ["json", "markdown"])


@pytest.fixture(scope="module")
async def ann(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ann") as opened:
        yield opened


@pytest.fixture(scope="module")
async def ben(store: Store) -> AsyncIterator[Browser]:
    async with browser(store, "ben") as opened:
        yield opened


async def exported(host: Browser, conversation: UUID | str, kind: str = "json") -> str:
    """The file."""
    answer = await host.http.get(f"/api/conversations/{conversation}/export?format={kind}")
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.content.decode()


async def imported(
    host: Browser, file: str | bytes, kind: str = "json", status: int = 201, key: str | None = None
) -> dict[str, Any]:
    """What the import answers."""
    headers = {"Content-Type": TYPES[kind]} | ({"Idempotency-Key": key} if key else {})
    answer = await host.http.post("/api/conversations/import", content=file, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def essence(file: str) -> dict[str, Any]:
    """A JSON export without ids and the times of its making; parents by place."""
    whole = orjson.loads(file)
    del whole["exported_at"], whole["conversation"]["created_at"], whole["participants"]
    places: dict[str | None, int | None] = {None: None}
    for place, message in enumerate(whole["messages"]):
        places[message.pop("id")] = place
        message["parent_id"] = places[message["parent_id"]]
    return whole


def a_file(messages: list[dict[str, Any]], **conversation: Any) -> str:
    """A JSON file; a message needs `parent`, a place in the list or None, and what is not usual about it."""
    usual = {"role": "user", "author": "dan", "content": "Hello", "created_at": "2024-05-01T10:00:00Z"}
    linked = []
    for place, message in enumerate(messages):
        parent = message.pop("parent", None)
        filled = usual | ({"author": None} if message.get("role", "user") != "user" else {}) | message
        linked.append(filled | {"id": str(place), "parent_id": None if parent is None else str(parent)})
    whole = {
        "format": "rustygpt.conversation",
        "version": 1,
        "conversation": {"title": "From afar"} | conversation,
        "messages": linked,
    }
    return orjson.dumps(whole).decode()


@pytest.fixture(scope="module")
async def lively(store: Store, ann: Browser) -> UUID:
    """A conversation with branches, an edit, a deletion, a title, a second author and an answer under way."""
    session, ben = store.sessions["ann"], store.sessions["ben"]
    made = await ann.call(
        "POST",
        "/api/conversations",
        {"title": 'Plans: "2025"\n---', "is_group": True, "temperature": 0.7, "system_prompt": "Be brief.\n\n---\n"},
        201,
    )
    conversation = UUID(made["conversation_id"])
    await store.call("add_participant", session, None, conversation, await store.user_id(ben), "member")
    first = await store.post(session, conversation, "Where to?\n\n```python\nprint('#')\n```")
    await store.answer(first, "To the sea.\n\n```\nnever closed")
    by_ben = await store.reply(ben, first["assistant_message_id"], "# Why?\n<!-- rustygpt:end -->")
    await store.answer(by_ben, "Because.")
    branch = await store.reply(session, first["assistant_message_id"], "And when?")
    await store.answer(branch, "  In May.\n")
    await store.call("edit", session, HOUR, UUID(branch["message_id"]), "And when exactly?", None)
    await store.call("delete_message", ben, HOUR, UUID(by_ben["message_id"]))
    await store.call("rename_thread", session, HOUR, UUID(first["root_id"]), "Journey")
    waiting = await store.post(session, conversation, "Anything else?")
    [claim] = await store.claim("replica", waiting["assistant_message_id"])
    await store.append(claim, 0, "Not yet")
    return conversation


async def test_json_export_tells_all(ann: Browser, lively: UUID) -> None:
    file = orjson.loads(await exported(ann, lively))
    assert (file["format"], file["version"]) == ("rustygpt.conversation", 1)
    assert file["conversation"]["system_prompt"] == "Be brief.\n\n---\n"
    assert file["participants"] == [{"name": "ann", "role": "owner"}, {"name": "ben", "role": "member"}]
    assert "@" not in orjson.dumps(file["participants"]).decode()
    assert [(m["role"], m["author"], m["content"], m["deleted"]) for m in file["messages"]] == [
        ("user", "ann", "Where to?\n\n```python\nprint('#')\n```", False),
        ("assistant", None, "To the sea.\n\n```\nnever closed", False),
        ("user", "ben", "", True),
        ("assistant", None, "Because.", False),
        ("user", "ann", "And when exactly?", False),
        ("assistant", None, "  In May.\n", False),
        ("user", "ann", "Anything else?", False),  # its answer is being written
    ]
    assert file["messages"][0]["title"] == "Journey"
    assert file["messages"][1]["finish_reason"] == "stop"
    assert file["messages"][4]["edited_at"]


async def test_markdown_export_reads_well(ann: Browser, lively: UUID) -> None:
    file = await exported(ann, lively, "markdown")
    shown = re.sub(r"<!-- rustygpt:.*? -->\n|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "", file)
    front, _, body = shown.partition('\n---\n\n# Plans: "2025" ---\n\n')
    assert front.startswith("---\nformat: ")
    assert '\ntitle: "Plans: \\"2025\\"\\n---"\n' in front
    assert body.startswith(
        "## Journey\n**#1 ann** ·  UTC\n\nWhere to?\n\n```python\nprint('#')\n```\n\n"
        "**#2 assistant** to #1 ·  UTC\n\nTo the sea.\n\n```\nnever closed\n\n"
        "```\n**#3 ben** to #2 ·  UTC · deleted\n\n\n\n"
        "**#4 assistant** to #3 ·  UTC\n\nBecause.\n\n"
        "**#5 ann** to #2 ·  UTC · edited\n\nAnd when exactly?\n\n"
    )


@FORMATS
async def test_what_is_exported_comes_back_the_same(ann: Browser, ben: Browser, lively: UUID, kind: str) -> None:
    made = await imported(ben, await exported(ann, lively, kind), kind)
    assert made["warnings"] == []
    assert made["message_count"] == 7
    again = essence(await exported(ben, made["conversation_id"]))
    assert again == essence(await exported(ann, lively))


async def test_imported_conversation_is_the_importers_alone(
    store: Store, ann: Browser, ben: Browser, lively: UUID
) -> None:
    made = await imported(ben, await exported(ann, lively))
    path = f"/api/conversations/{made['conversation_id']}"
    held = await ben.call("GET", path)
    assert [(item["username"], item["role"]) for item in held["participants"]] == [("ben", "owner")]
    assert held["imported_at"]
    assert held["unread"] == 0
    await ann.refused(403, "GET", path)
    ben_id = await store.user_id(store.sessions["ben"])
    events = await store.events(UUID(made["conversation_id"]))
    assert [(kind, payload["user_id"]) for _, kind, payload in events] == [("membership.changed", str(ben_id))]


async def test_nobody_is_made_to_have_said_something(store: Store, ann: Browser, ben: Browser) -> None:
    """A name in a file is a name: the words are the importer's, and every reader sees that."""
    made = await imported(ben, a_file([{"author": "ann", "content": "I owe Ben money."}]))
    conversation = UUID(made["conversation_id"])
    [thread] = (await ben.call("GET", f"/api/conversations/{conversation}/threads"))["threads"]
    [message] = (await store.tree(store.sessions["ben"], thread["root_id"]))["messages"]
    assert message["author_id"] == str(await store.user_id(store.sessions["ben"]))
    assert message["author_name"] == "ann (imported)"
    await store.call("edit", store.sessions["ben"], HOUR, UUID(message["id"]), "I owe Ben nothing.", None)
    assert "I owe Ben nothing." in await exported(ben, conversation)


async def test_imported_conversation_goes_on(store: Store, ann: Browser, lively: UUID) -> None:
    session = store.sessions["ann"]
    made = await imported(ann, await exported(ann, lively))
    conversation = UUID(made["conversation_id"])
    threads = (await ann.call("GET", f"/api/conversations/{conversation}/threads"))["threads"]
    root = next(thread for thread in threads if thread["title"] == "Journey")
    tree = (await store.tree(session, root["root_id"]))["messages"]
    sea = next(message for message in tree if message["content"].startswith("To the sea"))
    reply = await store.reply(session, sea["id"], "A third branch")
    await store.answer(reply, "Yes.")
    fresh = await store.post(session, conversation, "A new thread")
    paths = {m["content"]: m["path"] for m in (await store.tree(session, root["root_id"]))["messages"]}
    assert paths["A third branch"] == [*sea["path"], 3]
    assert (await store.tree(session, fresh["root_id"]))["messages"][0]["path"] == [3]
    assert len((await ann.call("GET", f"/api/search?query=sea&conversation_id={conversation}"))["results"]) == 1
    status = await store.call("cancel", session, UUID(sea["id"]))
    assert status["status"] == "completed"


async def test_viewer_exports_and_outsider_does_not(store: Store, ann: Browser, ben: Browser) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    answer = await ben.http.get(f"/api/conversations/{conversation}/export")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    ben_id = await store.user_id(store.sessions["ben"])
    await store.call("add_participant", store.sessions["ann"], None, conversation, ben_id, "viewer")
    answer = await ben.http.get(f"/api/conversations/{conversation}/export")
    assert answer.headers["content-disposition"] == f'attachment; filename="conversation-{conversation}.json"'
    assert orjson.loads(answer.content)["messages"] == []


@FORMATS
async def test_import_sent_again_with_the_same_key_makes_one(ann: Browser, lively: UUID, kind: str) -> None:
    file, key = await exported(ann, lively, kind), str(uuid4())
    first = await imported(ann, file, kind, key=key)
    assert await imported(ann, file, kind, key=key) == first
    assert (await imported(ann, file, kind))["conversation_id"] != first["conversation_id"]


async def test_unknown_model_is_told(ann: Browser) -> None:
    made = await imported(ann, a_file([], model="of-another-house"))
    assert made["warnings"] == ["The model 'of-another-house' is not served here; the default model answers."]
    assert (await ann.call("GET", f"/api/conversations/{made['conversation_id']}"))["model"] is None


LINES = st.sampled_from(
    [
        "", " ", "---", "```", "~~~~", "    ```", "```python", "# Heading", "title: \"x\"", "<!-- rustygpt:end -->",
        "\\<!-- rustygpt:end -->", "\\\\<!-- rustygpt:message {} -->", '<!-- rustygpt:message {"depth":1} -->',
        "<!-- a comment", "-->", "\r", "a\r", "\u2028", "\x85", "\x0b\x0c", "\ufeff", "**#1 ann** · 2025", "word",
    ]
)  # fmt: skip
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.one_of(st.lists(LINES, min_size=1, max_size=6).map("\n".join), st.text(CHARACTERS, min_size=1, max_size=60))
SAID = TEXTS.filter(lambda text: bool(text.strip()))
NAMES = st.text(CHARACTERS, min_size=1, max_size=20)
TITLES = st.none() | NAMES.map(str.strip).filter(bool)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2024, 1, 1))


@st.composite
def conversations(draw: st.DrawFn) -> str:
    """A file: any tree of odd messages."""
    messages: list[dict[str, Any]] = []
    for place in range(draw(st.integers(0, 7))):
        parent = draw(st.none() | st.integers(0, place - 1)) if place else None
        role = draw(st.sampled_from(["user", "assistant", "system", "tool"]))
        deleted = draw(st.booleans())
        messages.append(
            {
                "parent": parent,
                "role": role,
                "author": draw(NAMES) if role == "user" else None,
                "content": "" if deleted else draw(SAID if role == "user" else TEXTS | st.just("")),
                "deleted": deleted,
                "title": draw(TITLES) if parent is None else None,
                "created_at": draw(TIMES).isoformat() + "Z",
                "edited_at": draw(st.none() | TIMES.map(lambda time: time.isoformat() + "Z")),
                "finish_reason": draw(st.sampled_from([None, "stop", "length", "error"])),
            }
        )
    settings = {"is_group": draw(st.booleans()), "reply_mode": draw(st.sampled_from(["always", "mentioned", "never"]))}
    prompt, title = draw(st.none() | SAID), draw(NAMES.map(str.strip).filter(bool))
    return a_file(messages, title=title, system_prompt=prompt, **settings)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=conversations())
@example(file=a_file([{"content": "<!-- rustygpt:end -->\n\\<!-- rustygpt:end -->\n"}]))
async def test_any_conversation_survives_both_formats(ann: Browser, file: str) -> None:
    first = (await imported(ann, file))["conversation_id"]
    expected = essence(await exported(ann, first))
    by_json = (await imported(ann, await exported(ann, first)))["conversation_id"]
    markdown = await exported(ann, by_json, "markdown")
    by_markdown = (await imported(ann, markdown, "markdown"))["conversation_id"]
    assert essence(await exported(ann, by_json)) == expected
    assert essence(await exported(ann, by_markdown)) == expected
    sent = orjson.loads(file)["messages"]
    kept = {(m["content"], m["author"], m["title"]) for m in expected["messages"]}
    assert kept == {(m["content"], m["author"], m.get("title")) for m in sent}


async def test_no_name_ends_the_comment_that_it_stands_in(ann: Browser) -> None:
    made = await imported(ann, a_file([{"author": "--> *dan* <b>", "title": "-->"}]))
    file = await exported(ann, made["conversation_id"], "markdown")
    marks = [line for line in file.split("\n") if line.startswith("<!-- rustygpt:")]
    assert [line.index(">") for line in marks] == [len(line) - 1 for line in marks]
    again = await imported(ann, file, "markdown")
    assert essence(await exported(ann, again["conversation_id"]))["messages"][0]["author"] == "--> *dan* <b>"


async def test_file_with_other_ends_of_lines_is_read(ann: Browser) -> None:
    made = await imported(ann, a_file([{"content": "one\n\ntwo"}]))
    file = await exported(ann, made["conversation_id"], "markdown")
    again = await imported(ann, file.replace("\n", "\r\n"), "markdown")
    whole = orjson.loads(await exported(ann, again["conversation_id"]))
    assert [message["content"] for message in whole["messages"]] == ["one\n\ntwo"]


async def test_siblings_keep_the_order_of_the_file(ann: Browser) -> None:
    """Breadth first in the file, depth first in the tree."""
    file = a_file([{"content": "1"}, {"content": "2"}, {"parent": 0, "content": "1.1"}, {"parent": 1, "content": "2.1"},
                   {"parent": 0, "content": "1.2"}, {"parent": 2, "content": "1.1.1"}])  # fmt: skip
    made = await imported(ann, file)
    whole = orjson.loads(await exported(ann, made["conversation_id"]))
    assert [message["content"] for message in whole["messages"]] == ["1", "1.1", "1.1.1", "1.2", "2", "2.1"]


SPOILED_JSON = {
    "no JSON": ("{", 400, "line 1 column 1"),
    "cut off": (a_file([{}])[:-9], 400, "line 1 column"),
    "no object": ("[]", 422, "body"),
    "another format": (
        '{"format": "chat", "version": 1, "conversation": {"title": "a"}, "messages": []}',
        422,
        "format",
    ),
    "another version": (a_file([]).replace('"version":1', '"version":2'), 422, "version"),
    "no title": (a_file([]).replace('"title":"From afar"', ""), 422, "conversation.title"),
    "unknown field": (a_file([{}, {"colour": "red"}]), 422, "messages.1.colour"),
    "unknown parent": (a_file([{}, {"parent": 7}]), 422, "messages.1.parent_id"),
    "parent that comes later": (a_file([{"parent": 1}, {}]), 422, "messages.0.parent_id"),
    "own parent": (a_file([{"parent": 0}]), 422, "messages.0.parent_id"),
    "same id twice": (a_file([{}, {}]).replace('"id":"1"', '"id":"0"'), 422, "messages.1.id"),
    "answer with an author": (a_file([{"role": "assistant", "author": "ann"}]), 422, "messages.0"),
    "person without a name": (a_file([{"author": None}]), 422, "messages.0"),
    "nothing said": (a_file([{"content": " \n"}]), 422, "messages.0"),
    "deleted with content": (a_file([{"deleted": True}]), 422, "messages.0"),
    "U+0000": (a_file([{"content": "a\0b"}]), 422, "messages.0.content"),
    "half a character": (a_file([{"content": "@"}]).replace("@", "\\ud800"), 400, "JSON"),
    "a time to come": (a_file([{"created_at": "2999-01-01T00:00:00Z"}]), 422, "messages.0.created_at"),
    "a time without a zone": (a_file([{"created_at": "2024-01-01T00:00:00"}]), 422, "messages.0.created_at"),
    "too long": (a_file([{"content": "x" * 100_001}]), 422, "messages.0"),
    "temperature": (a_file([], temperature=3), 422, "conversation.temperature"),
    "reply mode": (a_file([], reply_mode="sometimes"), 422, "conversation.reply_mode"),
}


@pytest.mark.parametrize("case", SPOILED_JSON)
async def test_spoiled_json_is_refused_with_the_place(ann: Browser, case: str) -> None:
    file, status, place = SPOILED_JSON[case]
    before = await ann.call("GET", "/api/conversations?limit=200")
    refusal = await imported(ann, file, status=status)
    assert place in refusal["message"], refusal
    assert (await ann.call("GET", "/api/conversations?limit=200"))["conversations"] == before["conversations"]


HEAD = '---\nformat: "rustygpt.conversation"\nversion: 1\ntitle: "T"\n---\n\n'
MARK = '<!-- rustygpt:message {"depth":1,"role":"user","author":"dan","created_at":"2024-05-01T10:00:00Z"} -->\n'
SAYS = f"{MARK}**dan**\n\nHello\n\n"
CLOSE = "<!-- rustygpt:end -->\n"
SPOILED_MARKDOWN: dict[str, tuple[str | bytes, int, str]] = {
    "no front matter": ("# Hello\n", 422, "line 1"),
    "front matter that is not closed": ('---\ntitle: "T"\n', 422, "line 1"),
    "value that is not JSON": (HEAD.replace('"T"', "T") + CLOSE, 422, "line 4"),
    "name that stands twice": (HEAD.replace("---\n\n", "version: 1\n---\n\n") + CLOSE, 422, "line 5"),
    "unknown name": (HEAD.replace("---\n\n", "colour: 1\n---\n\n") + CLOSE, 422, "line 5, colour"),
    "wrong value": (HEAD.replace('"T"', "5") + CLOSE, 422, "line 4, title"),
    "another version": (HEAD.replace("1", "2") + CLOSE, 422, "line 3, version"),
    "no title": (HEAD.replace('title: "T"\n', "") + CLOSE, 422, "title"),
    "cut off": (HEAD + SAYS, 422, "line 12"),
    "no messages and cut off": (HEAD, 422, "rustygpt:end"),
    "text after the end": (HEAD + SAYS + CLOSE + "more", 422, "line 12"),
    "unknown mark": (HEAD + SAYS + "<!-- rustygpt:thread -->\n" + CLOSE, 422, "line 12"),
    "mark without JSON": (HEAD + SAYS.replace('"depth":1', '"depth":') + CLOSE, 422, "line 7"),
    "missing field": (HEAD + SAYS + SAYS.replace('"role":"user",', "") + CLOSE, 422, "line 12, role"),
    "content in the mark": (HEAD + SAYS.replace('"depth":1', '"depth":1,"content":"a"') + CLOSE, 422, "line 7"),
    "depth that begins too deep": (HEAD + SAYS.replace('"depth":1', '"depth":2') + CLOSE, 422, "line 7"),
    "depth that leaps": (HEAD + SAYS + SAYS.replace('"depth":1', '"depth":3') + CLOSE, 422, "line 12"),
    "depth of nothing": (HEAD + SAYS.replace('"depth":1', '"depth":0') + CLOSE, 422, "line 7, depth"),
    "nothing said": (HEAD + MARK + "**dan**\n\n\n\n" + CLOSE, 422, "line 7"),
    "no UTF-8": ((HEAD + SAYS + CLOSE).encode().replace(b"Hello", b"\xff"), 400, "byte 175"),
    "U+0000": ((HEAD + SAYS + CLOSE).replace("Hello", "\0"), 422, "line 7, content"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED_MARKDOWN)
async def test_spoiled_markdown_is_refused_with_the_line(ann: Browser, case: str) -> None:
    file, status, place = SPOILED_MARKDOWN[case]
    refusal = await imported(ann, file, "markdown", status)
    assert place in refusal["message"], refusal
    assert refusal["details"][0]["place"] in refusal["message"]


async def test_markdown_written_by_hand_is_read(ann: Browser) -> None:
    made = await imported(ann, HEAD + SAYS + MARK.replace('"depth":1', '"depth":2') + "\nHi" + "\n" + CLOSE, "markdown")
    whole = orjson.loads(await exported(ann, made["conversation_id"]))
    assert [message["content"] for message in whole["messages"]] == ["Hello", "Hi"]


async def test_other_kinds_of_files_are_refused(ann: Browser) -> None:
    for kind in ("text/plain", "multipart/form-data", ""):
        answer = await ann.http.post("/api/conversations/import", content="a", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, "RGP.MEDIA_TYPE")


async def test_only_imports_may_be_large(store: Store) -> None:
    file = a_file([{"content": "x" * 3000}])
    async with browser(store, "ann", body_limit_bytes=2048, import_limit_bytes=8192) as host:
        await imported(host, file)
        refusal = await imported(host, a_file([{"content": "x" * 9000}]), status=413)
        assert "8192" in refusal["message"]
        await host.refused(413, "POST", "/api/conversations", {"title": "x" * 3000})


@FORMATS
async def test_ten_thousand_messages_go_out_and_come_in(ann: Browser, kind: str) -> None:
    """A long thread, a wide one, and many short ones."""
    messages: list[dict[str, Any]] = [{"content": "deep 0"}]
    messages += [
        {"parent": place, "role": ("assistant", "user")[place % 2], "content": f"deep {place + 1}"}
        for place in range(1999)
    ]
    messages += [{"content": "wide"}] + [{"parent": 2000, "content": f"wide {place}"} for place in range(3999)]
    for thread in range(1000):
        messages += [{"content": f"thread {thread}"}]
        messages += [{"parent": 6000 + 4 * thread + place, "content": "short " * 50} for place in range(3)]
    made = await imported(ann, a_file(messages))
    assert made["message_count"] == len(messages) == 10_000
    again = await imported(ann, await exported(ann, made["conversation_id"], kind), kind)
    assert essence(await exported(ann, again["conversation_id"])) == essence(
        await exported(ann, made["conversation_id"])
    )


@pytest.mark.parametrize("writer", [JsonWriter, MarkdownWriter])
async def test_memory_does_not_grow_with_the_file(
    store: Store, superuser: asyncpg.Connection, writer: type[Writer]
) -> None:
    conversation = await store.conversation(store.sessions["ann"])
    await superuser.execute(
        """
        insert into rustygpt.messages (id, conversation_id, root_id, author_id, role, state, content, path, seq)
        select id, $1, id, $2, 'user', 'done', repeat('word ', 20000), array[n], n
          from generate_series(1, 300) n, lateral (select gen_random_uuid() as id where n > 0) made
        """,
        conversation,
        await store.user_id(store.sessions["ann"]),
    )
    tracemalloc.start()
    file = await write_file(store.app, store.sessions["ann"], conversation, writer())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert await file.tell() > 30_000_000
    assert peak < 15_000_000
    await file.aclose()


@pytest.mark.parametrize(
    ("content", "fence"),
    [
        ("", ""),
        ("```\ncode\n```", ""),
        ("```\ncode", "```"),
        ("````\n```\n", "````"),
        ("~~~\n```\n", "~~~"),
        ("```\ncode\n``` more", "```"),
        ("```a`b```", ""),
        ("   ```\n  ````", ""),
        ("    ```", ""),
    ],
)
def test_fence_that_is_left_open_is_known(content: str, fence: str) -> None:
    assert open_fence(content) == fence
