"""Answers that share a stream on their way from a replica to a Gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.handle import DeploymentResponseGenerator

from deployments.gateway.v1.answer import Answer
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.shared_reader import SharedReader
from deployments.generation import Ask, Ended, Item, Logprob, Parcels, Piece, ReturnPath, SentBatch, Started, Switch
from deployments.model import shared_streams
from deployments.model.shared_streams import SharedStreams, joined

TOKENS = 40


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_streams, "SHORTEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(shared_streams, "PAUSE_SECONDS", 0.002)


class Wire(DeploymentResponseGenerator):
    """A streaming call, which may break. As Serve does, it asks for messages before anybody reads them."""

    def __init__(self, made: AsyncIterator[Any]) -> None:
        self.is_broken = False
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._pump(made))

    async def _pump(self, made: AsyncIterator[Any]) -> None:
        try:
            async for message in made:
                self._tell(message)
            self._tell(StopAsyncIteration())
        except RayTaskError as error:
            self._tell(error)

    def _tell(self, message: Any) -> None:
        if not self.is_broken:
            self._messages.put_nowait(message)

    async def __anext__(self) -> Any:
        """The next message."""
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    def cancel(self) -> None:
        """The caller does not listen any more."""
        self._task.cancel()

    def break_off(self) -> None:
        """Messages are lost from now on; the replica does not know."""
        self.is_broken = True
        while not self._messages.empty():
            self._messages.get_nowait()
        self._messages.put_nowait(ActorDiedError())


class Replica:
    """One that counts: each answer is the numbers from what was produced before up to TOKENS."""

    def __init__(self, fault_at: int | None = None) -> None:
        self._fault_at = fault_at
        self.streams = SharedStreams("r1", lambda: 1)
        self.own: list[list[SentBatch]] = []
        self.shared: list[Wire] = []
        self.making = 0
        self.generate, self.carry = _Method(self._generate), _Method(self._carry)

    def options(self, stream: bool) -> Replica:
        """The same."""
        assert stream
        return self

    def _generate(self, ask: Ask, path: ReturnPath) -> Wire:
        told: list[SentBatch] = []
        self.own.append(told)

        async def kept() -> AsyncIterator[SentBatch]:
            async for batch in self.streams.send(self._count(ask), path):
                told.append(batch)
                yield batch

        return Wire(kept())

    def _carry(self, replica: str, name: str, opening: int) -> Wire:
        assert replica == "r1"
        self.shared.append(Wire(self.streams.carry(name, opening)))
        return self.shared[-1]

    async def _count(self, ask: Ask) -> AsyncGenerator[list[Item], None]:
        self.making += 1
        try:
            yield [Started(3)]
            for number in range(len(ask.produced_token_ids), TOKENS):
                await asyncio.sleep(0.001)
                if number == self._fault_at:
                    raise RayTaskError("generate", "Traceback", KeyError("secret")).as_instanceof_cause()
                yield [Piece(0, f"{number} ", (number,))]
            for index in range(ask.n):
                yield [Ended(index, "stop", 3, TOKENS, 0)]
        finally:
            self.making -= 1


class _Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


async def read(replica: Any, reader: SharedReader, after_each: Any = None) -> list[Item]:
    answer = Answer(replica, reader, Ask(text="Count"), 5.0)
    await answer.open()
    items: list[Item] = []
    async for batch in answer:
        items += batch
        if after_each:
            after_each(items)
    return items


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.001)


def numbers(items: list[Item]) -> list[int]:
    return [number for item in items if isinstance(item, Piece) for number in item.token_ids]


def counted(items: list[Item]) -> bool:
    texts = [item.text for item in items if isinstance(item, Piece)]
    return (
        isinstance(items[0], Started)
        and isinstance(items[-1], Ended)
        and len(items) == len(texts) + 2
        and numbers(items) == [*range(TOKENS)]
        and "".join(texts) == "".join(f"{number} " for number in range(TOKENS))
    )


async def test_answers_move_to_the_shared_stream_and_nothing_is_lost_or_told_twice() -> None:
    replica: Any = Replica()
    reader = SharedReader(replica)
    answers = await asyncio.gather(*(read(replica, reader) for _ in range(20)))
    assert all(map(counted, answers))
    assert len(replica.shared) == 1
    switched = [told for told in replica.own if any(isinstance(item, Switch) for batch in told for item in batch)]
    assert len(switched) == 20
    assert sum(map(len, replica.own)) < 20 * 10, "most came on the shared one"
    assert not reader._inboxes


@pytest.mark.parametrize("times", [1, 3])
async def test_answers_go_on_where_they_were_when_the_shared_stream_breaks(times: int) -> None:
    replica: Any = Replica()
    reader = SharedReader(replica)
    broken = 0

    def disturb(items: list[Item]) -> None:
        nonlocal broken
        if broken < times and len(numbers(items)) > 6 * (broken + 1) and len(replica.shared) > broken:
            replica.shared[broken].break_off()
            broken += 1

    answers = await asyncio.gather(read(replica, reader, disturb), *(read(replica, reader) for _ in range(5)))
    assert broken == times
    assert all(map(counted, answers))


async def test_a_fault_of_the_replica_is_told_though_the_answer_has_moved() -> None:
    replica: Any = Replica(fault_at=20)
    reader = SharedReader(replica)
    with pytest.raises(ApiError) as told:
        await read(replica, reader)
    assert (told.value.status, told.value.code) == (500, "generation_failed")
    assert len(replica.own) == 1, "it would fail again"
    assert not reader._inboxes


@pytest.mark.parametrize("n", [1, 2])
async def test_an_answer_that_has_ended_is_not_made_again_though_its_own_stream_breaks(n: int) -> None:
    replica: Any = Replica()
    reader = SharedReader(replica)
    calls: list[Wire] = []
    generate = replica.generate.remote
    replica.generate.remote = lambda *arguments: calls.append(generate(*arguments)) or calls[-1]
    answer = Answer(replica, reader, Ask(text="Count", n=n), 5.0)
    await answer.open()
    ends = 0
    async for batch in answer:
        ends += sum(isinstance(item, Ended) for item in batch)
        if any(isinstance(item, Piece) and item.token_ids[0] > 10 for item in batch):
            calls[0].break_off()
    assert ends == n
    assert len(calls) == 1


async def test_an_answer_that_lies_ready_is_read_though_the_shared_stream_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_streams, "IDLE_SECONDS", 0.02)
    replica: Any = Replica()
    reader = SharedReader(replica)
    assert counted(await read(replica, reader))  # opens the shared stream
    answer = Answer(replica, reader, Ask(text="Count"), 5.0)
    await answer.open()
    await until(lambda: not replica.making and not reader._openings)
    assert counted([item async for batch in answer for item in batch])
    assert len(replica.own) == 2


async def test_who_leaves_is_not_answered_any_more() -> None:
    replica: Any = Replica()
    reader = SharedReader(replica)
    leaving = asyncio.create_task(
        read(replica, reader, lambda items: leaving.cancel() if len(numbers(items)) > 7 else None)
    )
    staying = asyncio.create_task(read(replica, reader))
    await asyncio.wait({leaving})
    await until(lambda: replica.making == 1)
    assert not staying.done()
    assert counted(await staying)


async def test_a_shared_stream_without_answers_ends_and_the_next_answer_opens_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_streams, "IDLE_SECONDS", 0.02)
    replica: Any = Replica()
    reader = SharedReader(replica)
    for _ in range(3):
        assert counted(await read(replica, reader))
        await until(lambda: not reader._openings)
    assert len(replica.shared) == 3


async def test_text_gathers_for_a_while_but_first_words_and_ends_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_streams, "PAUSE_SECONDS", 600)
    monkeypatch.setattr(shared_streams, "LONGEST_PAUSE_SECONDS", 600)
    streams = SharedStreams("r1", lambda: 1)
    parcels: list[Parcels] = []

    async def carried() -> None:
        async for parcel in streams.carry("g1", 7):
            parcels.append(parcel)  # noqa: PERF401 looked at meanwhile

    carrying = asyncio.create_task(carried())
    await asyncio.sleep(0)
    own = [batch async for batch in streams.send(Replica()._count(Ask()), ReturnPath("g1", 5))]
    assert own == [[Started(3, "r1"), Switch(7)]]
    await until(lambda: len(parcels) == 2)
    assert parcels[0] == {5: [Piece(0, "0 ", (0,))]}
    gathered = Piece(0, "".join(f"{number} " for number in range(1, TOKENS)), tuple(range(1, TOKENS)))
    assert parcels[1] == {5: [gathered, Ended(0, "stop", 3, TOKENS, 0), Switch()]}
    carrying.cancel()


def test_pieces_with_log_probabilities_stay_apart_and_those_of_several_answers_do() -> None:
    plain, told = Piece(0, "a", (1,)), Piece(0, "b", (2,), (Logprob("b", b"b", -0.5),))
    assert joined(plain, Piece(0, "c", (3, 4))) == Piece(0, "ac", (1, 3, 4))
    for one, other in (
        (plain, told),
        (told, plain),
        (plain, Piece(1, "c", (3,))),
        (Started(1), plain),
        (plain, Switch()),
    ):
        assert joined(one, other) is None
