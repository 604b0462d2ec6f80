"""Stored answers written by the real turn runner with the real model, on a real PostgreSQL; no cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest

from deployments.config import Model, Turn, bundled_model_file
from deployments.gateway.v1.callers import Caller
from deployments.gateway.v1.stored.answer import StoredAnswer
from deployments.gateway.v1.stored.store import Place, Store
from deployments.generation import Ask, Ended, Item, Piece, Sampling
from deployments.model.engine import Engine, EngineOptions
from deployments.model.engine.chat_template import ChatTemplate
from deployments.model.live_engine import LiveEngine
from deployments.model.turn_runner import TurnRunner
from tests.integration.conftest import Store as Functions
from tests.integration.test_stored_tail import all_of, answers_of, gone_silent

SETTINGS = Turn(patience_seconds=0.1)
THINKER = "{% for m in messages %}{{ m.content }}{% endfor %}<|im_start|>assistant\n<think>\n"
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 60, "maxLength": 80},
        "country": {"type": "string", "minLength": 60, "maxLength": 80},
    },
    "required": ["name", "country"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The bundled model."""
    engine = Engine(bundled_model_file(), EngineOptions(max_sequence_tokens=1024, max_slots=4))
    yield engine
    engine.close()


class Replica:
    """A runner of turns, which can die."""

    def __init__(self, store: Functions, engine: Engine, name: str) -> None:
        self._store, self._name = store, name
        self.runner = TurnRunner(store.worker, LiveEngine(engine), "default", Model(max_tokens=100), SETTINGS, name)
        self._serving = asyncio.create_task(self.runner.serve())

    async def die(self) -> None:
        """It writes nothing more, and the others know."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self._store.worker.value("worker_release", "default", [self._name])


@pytest.fixture
async def first(store: Functions, engine: Engine) -> AsyncIterator[Replica]:
    """A replica that looks for turns."""
    replica = Replica(store, engine, "first")
    yield replica
    await replica.die()


@pytest.fixture
async def gateway(store: Functions) -> AsyncIterator[Store]:
    """Stored answers of a Gateway, whose turns are found by replicas themselves."""
    made = answers_of(store.app)
    yield made
    await gone_silent(made)


@pytest.fixture
async def ann(store: Functions) -> Caller:
    """Somebody with a session."""
    return Caller(await store.user_id(store.sessions["ann"]), store.sessions["ann"], None, frozenset())


def asking(text: str, **fields: Any) -> Ask:
    """A question to the model; sampling fields by their names."""
    sampling = Sampling(**{"temperature": 0.0, "repeat_penalty": 1.0} | fields.pop("sampling", {}))
    return Ask(messages=({"role": "user", "content": text},), sampling=sampling, **fields)


async def begin(gateway: Store, caller: Caller, ask: Ask) -> StoredAnswer:
    """A new stored chat."""
    return await gateway.create(caller, "chat", "default", ask, {}, None, False)


async def answer_to(gateway: Store, caller: Caller, ask: Ask) -> tuple[list[Piece], Ended]:
    """Its pieces and its end."""
    return parts(await all_of(gateway.follow(await begin(gateway, caller, ask))))


def parts(items: list[Item]) -> tuple[list[Piece], Ended]:
    """The pieces and the end."""
    end = items[-1]
    assert isinstance(end, Ended)
    return [item for item in items if isinstance(item, Piece)], end


def text_of(pieces: list[Piece]) -> str:
    """What they say."""
    return "".join(piece.text for piece in pieces)


async def test_answer_follows_what_was_asked(first: Replica, gateway: Store, ann: Caller) -> None:
    pieces, end = await answer_to(gateway, ann, asking("Count to ten.", sampling={"max_tokens": 9, "top_logprobs": 1}))
    tokens = [token for piece in pieces for token in piece.token_ids]
    logprobs = [item for piece in pieces for item in piece.logprobs]
    assert (len(tokens), len(logprobs)) == (end.completion_tokens, end.completion_tokens)
    assert (end.reason, end.completion_tokens) == ("length", 9)
    assert text_of(pieces) == b"".join(item.raw for item in logprobs).decode()
    assert end.prompt_tokens > 10

    whole = text_of(pieces)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    stopped, end = await answer_to(gateway, ann, asking("Count to ten.", sampling={"max_tokens": 9, "stop": (stop,)}))
    assert (text_of(stopped), end.reason) == (whole[: whole.index(stop)], "stop")


async def test_thinking_that_the_template_opens_has_its_mark_in_conversations_too(
    store: Functions, first: Replica, gateway: Store, ann: Caller, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "template", ChatTemplate(THINKER, engine.vocabulary))
    session = store.sessions["ann"]
    conversation = await store.conversation(session)
    posted = await store.ask(session, conversation)
    async with asyncio.timeout(60):
        while (answer := (await store.tree(session, posted["root_id"]))["messages"][1])["state"] != "done":
            pass
    assert answer["content"].startswith("<think>")
    assert answer["content"].count("<think>") == 1

    place = Place(conversation, UUID(answer["id"]), "Go on.")
    ask = asking("Go on.", sampling={"max_tokens": 5})
    pieces, _ = parts(
        await all_of(gateway.follow(await gateway.create_in_thread(ann, "default", place, ask, {}, None)))
    )
    assert text_of(pieces).startswith("<think>")


async def test_raw_prompts_are_taken_as_they_are(first: Replica, gateway: Store, ann: Caller) -> None:
    pieces, end = await answer_to(gateway, ann, Ask(text="One, two, three,", sampling=Sampling(max_tokens=4)))
    assert pieces
    assert end.prompt_tokens < 12


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 11}], ids=["greedy", "seeded"])
async def test_another_replica_goes_on_within_the_schema(
    store: Functions, engine: Engine, gateway: Store, ann: Caller, sampling: dict[str, Any]
) -> None:
    first = Replica(store, engine, "dying")
    ask = asking("Describe a city.", json_schema=CITY, sampling=sampling | {"max_tokens": 200, "top_logprobs": 0})
    answer = await begin(gateway, ann, ask)
    items: list[Item] = []
    second = None
    async with aclosing(gateway.follow(answer)) as batches, asyncio.timeout(60):
        async for batch in batches:
            items += batch
            if second is None and sum(isinstance(item, Piece) for item in items) >= 2:
                await first.die()
                second = Replica(store, engine, "second")
    assert second is not None
    await second.die()
    pieces, end = parts(items)
    assert end.reason == "stop"
    assert set(json.loads(text_of(pieces))) == {"name", "country"}
    tokens = sum(len(piece.token_ids) for piece in pieces)
    # The token that ends the answer has no text.
    assert end.completion_tokens - tokens in (0, 1)
    assert sum(len(piece.logprobs) for piece in pieces) == tokens
    assert await all_of(gateway.follow(answer)) == items


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (asking("Hello?", json_schema={"type": "thing"}), "json_schema"),
        (asking("Hello?", grammar="root ::= ("), "grammar"),
        (asking("word " * 2000), "takes at most"),
    ],
    ids=["schema", "grammar", "length"],
)
async def test_what_the_model_does_not_take_ends_with_a_sentence(
    first: Replica, gateway: Store, ann: Caller, ask: Ask, sentence: str
) -> None:
    pieces, end = await answer_to(gateway, ann, ask)
    assert pieces == []
    assert end.reason == "error"
    assert sentence in end.message


async def test_stored_answers_wait_for_room_in_the_queue(store: Functions, gateway: Store, ann: Caller) -> None:
    small = Engine(bundled_model_file(), EngineOptions(max_sequence_tokens=128, max_slots=1, max_queue=1))
    replica = Replica(store, small, "small")
    ask = asking("Count.", sampling={"max_tokens": 8})
    answers = [await begin(gateway, ann, ask) for _ in range(5)]
    offers = [asyncio.create_task(replica.runner.run_turn(answer.message_id)) for answer in answers]
    ends = [parts(await all_of(gateway.follow(answer)))[1] for answer in answers]
    assert {end.reason for end in ends} <= {"stop", "length"}
    await asyncio.gather(*offers)
    await replica.die()
    small.close()


async def test_answer_that_is_cancelled_stops(first: Replica, gateway: Store, ann: Caller) -> None:
    ask = asking("Tell a long story.", sampling={"max_tokens": 900, "ignore_eos": True})
    answer = await begin(gateway, ann, ask)
    async with aclosing(gateway.follow(answer)) as batches, asyncio.timeout(60):
        await anext(batches)
        ended = await gateway.cancel(ann, "chat", answer.public_id)
    assert ended.ended is not None
    assert ended.ended.reason == "cancelled"
    assert ended.ended.completion_tokens < 900
    assert ended.text


async def test_answer_that_takes_too_long_ends_with_what_there_is(first: Replica, gateway: Store, ann: Caller) -> None:
    ask = asking("Tell a long story.", sampling={"max_tokens": 900, "ignore_eos": True}, seconds=2.0)
    pieces, end = await answer_to(gateway, ann, ask)
    assert (end.reason, end.message) == ("timeout", "The answer took longer than allowed.")
    assert end.completion_tokens >= sum(len(piece.token_ids) for piece in pieces)
