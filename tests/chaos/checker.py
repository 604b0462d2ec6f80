"""Judges a history against the final log. Pure: no clock, no network, no database."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.history import Cursor, History, Post, Reading, Seen

KEY = re.compile(r"\[([\w.-]+)\]")
"""Texts and titles of posts carry their key in square brackets."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, and where."""

    kind: str
    where: str


@dataclass
class Channel:
    """A channel's log at the end: events by offset."""

    epoch: int
    first_offset: int
    last_offset: int
    events: dict[int, Seen] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """A stored message."""

    id: str
    conversation: str
    parent: str | None
    role: str
    state: str
    content: str
    finish_reason: str | None


@dataclass(frozen=True)
class Turn:
    """A stored turn. `epoch` counts the replicas that took it."""

    message_id: str
    state: str
    epoch: int


@dataclass
class FinalLog:
    """What the database holds when all is quiet."""

    channels: dict[str, Channel] = field(default_factory=dict)
    conversations: dict[str, str] = field(default_factory=dict)  # id: title
    messages: dict[str, Message] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many events."""
        return sum(len(channel.events) for channel in self.channels.values())


def check(history: History, log: FinalLog) -> list[Violation]:
    """Every violation: none means that all promises were kept."""
    return [
        *(Violation("not recovered", move) for move in history.unrecovered),
        *(Violation("wrongly refused", what) for what in history.refusals),
        *_check_log(log),
        *(violation for reading in history.readings for violation in _check_reading(reading, log)),
        *_check_turns(log),
        *_check_posts(history, log),
        *_check_cancels(history, log),
        *(Violation("not taken over", t.message_id) for t in history.takeovers if not t.taken),
    ]


def _check_log(log: FinalLog) -> Iterator[Violation]:
    for channel_id, channel in log.channels.items():
        wanted = range(channel.first_offset, channel.last_offset + 1)
        if sorted(channel.events) != list(wanted):
            yield Violation("gap in the log", f"{channel_id}: {len(channel.events)} events for {wanted}")


def _check_reading(reading: Reading, log: FinalLog) -> Iterator[Violation]:
    where = f"{reading.reader} on {reading.channel} after {reading.after}"
    if reading.end == "reset":
        yield Violation("reset", where)
    channel = log.channels.get(reading.channel)
    if channel is None:
        if reading.events:
            yield Violation("not in the log", f"{where}: no such channel")
        return
    if reading.after is not None and reading.place is not None and reading.after != reading.place:
        yield Violation("wrong place", f"{where}: told to stand at {reading.place}")
    at = reading.after or reading.place
    if at is None and reading.events:
        yield Violation("wrong place", f"{where}: events, but no place before them")
        at = Cursor(channel.epoch, reading.events[0].cursor.offset - 1)
    for seen in reading.events:
        assert at is not None
        if (fault := _order_fault(at, seen.cursor)) is not None:
            yield Violation(fault, f"{where}: {seen.cursor} came after {at}")
        logged = channel.events.get(seen.cursor.offset) if seen.cursor.epoch == channel.epoch else None
        if logged is None:
            yield Violation("not in the log", f"{where}: {seen}")
        elif logged != seen:
            yield Violation("changed bytes", f"{where}: {seen} is {logged}")
        at = seen.cursor
    end = Cursor(channel.epoch, channel.last_offset)
    if reading.to_the_end and reading.last != end:
        yield Violation("short", f"{where}: ended at {reading.last}, the log at {end}")


def _order_fault(before: Cursor, cursor: Cursor) -> str | None:
    if cursor == before:
        return "duplicate"
    if cursor.epoch != before.epoch or cursor.offset < before.offset:
        return "reorder"
    return None if cursor.offset == before.offset + 1 else "gap"


def _check_turns(log: FinalLog) -> Iterator[Violation]:
    deltas: dict[str, list[tuple[int, str]]] = defaultdict(list)
    done: Counter[str] = Counter()
    for channel in log.channels.values():
        for _, event in sorted(channel.events.items()):
            if event.type not in ("message.delta", "message.done"):
                continue
            payload = json.loads(event.data)["payload"]
            message_id = payload["message_id"]
            if event.type == "message.done":
                done[message_id] += 1
                if message_id in log.messages and payload["finish_reason"] != log.messages[message_id].finish_reason:
                    yield Violation("other end stored", message_id)
            else:
                if done[message_id]:
                    yield Violation("text after the end", message_id)
                number = int(payload["id"].rpartition(":")[2])
                deltas[message_id].append((number, payload["choices"][0]["delta"].get("content", "")))
    for message_id in log.turns.keys() | done.keys() | deltas.keys():
        turn, message = log.turns.get(message_id), log.messages.get(message_id)
        if turn is None or message is None:
            yield Violation("events of no turn", message_id)
            continue
        if done[message_id] > 1:
            yield Violation("two ends", message_id)
        if done[message_id] == 0 or turn.state != "done" or message.state != "done":
            yield Violation("no end", f"{message_id}: turn {turn.state}, message {message.state}")
            continue
        if [number for number, _ in deltas[message_id]] != list(range(len(deltas[message_id]))):
            yield Violation("delta numbers", f"{message_id}: {[number for number, _ in deltas[message_id]]}")
        if "".join(text for _, text in deltas[message_id]) != message.content:
            yield Violation("other text stored", message_id)


def _check_posts(history: History, log: FinalLog) -> Iterator[Violation]:
    found: dict[str, list[str]] = defaultdict(list)
    marked = [(conversation, title) for conversation, title in log.conversations.items()]
    marked += [(message.id, message.content) for message in log.messages.values() if message.role == "user"]
    for item, text in marked:
        if match := KEY.search(text):
            found[match[1]].append(item)
        else:
            yield Violation("nobody's", f"{item}: {text[:80]!r}")
    for post in history.posts:
        yield from _check_post(post, found.pop(post.key, []), log)
    for key, items in found.items():
        yield Violation("nobody's", f"{key}: {items}")


def _check_post(post: Post, items: list[str], log: FinalLog) -> Iterator[Violation]:
    where = f"{post.kind} {post.key} of {post.person}, {post.outcome}, sent {post.sent} times"
    if len(items) > 1:
        yield Violation("post exists twice", f"{where}: {items}")
    if post.outcome == "refused" and items:
        yield Violation("refused post exists", f"{where}: {items}")
    if post.outcome == "ok" and not items:
        yield Violation("post is missing", where)
    if any(answer != post.answers[0] for answer in post.answers):
        yield Violation("repeated post got other ids", f"{where}: {post.answers}")
    for answer in post.answers[:1]:
        if items and answer["id"] not in items:
            yield Violation("post has another id", f"{where}: {items}")
        reply = answer.get("assistant_message_id")
        message = log.messages.get(reply or "")
        if reply is not None and (reply not in log.turns or message is None or message.parent != answer["id"]):
            yield Violation("post has no answer", where)


def _check_cancels(history: History, log: FinalLog) -> Iterator[Violation]:
    for cancel in history.cancels:
        message = log.messages.get(cancel.message_id)
        reason = message.finish_reason if message else None
        if (cancel.status == "cancelled") != (reason == "cancelled") and cancel.status in ("cancelled", "completed"):
            yield Violation("cancel", f"{cancel.message_id}: told {cancel.status}, ended with {reason}")
