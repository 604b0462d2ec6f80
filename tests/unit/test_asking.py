"""The Gateway's way to the models, where replicas die, are slow, or are asked for much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.handle import DeploymentResponseGenerator

from deployments.config import Settings
from deployments.gateway.v1.answer import Answer
from deployments.gateway.v1.asking import PORTION_LENGTH, PORTION_TEXTS, Asking, portions
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.shared_reader import SharedReader
from deployments.generation import Ask, Embedded, Ended, Item, Piece, ReturnPath, Started


class Stream(DeploymentResponseGenerator):
    """What one replica makes: batches of one item each; then it dies or fails, unless the answer has ended."""

    def __init__(self, items: Sequence[Item], end: Exception | None = None) -> None:
        self._items = list(items)
        self._end = end or ActorDiedError()

    async def __anext__(self) -> Any:
        """The next batch."""
        if self._items:
            item = self._items.pop(0)
            return item if isinstance(item, list) else [item]
        raise self._end

    def cancel(self) -> None:
        """Nothing goes on."""


class Replicas:
    """A handle whose calls go to one replica after the other."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.asks: list[Ask] = []
        self._streams = list(streams)
        self.generate = self

    def options(self, stream: bool) -> Replicas:
        """The same."""
        assert stream
        return self

    def remote(self, ask: Ask, _: ReturnPath) -> Stream:
        """Of the next replica."""
        self.asks.append(ask)
        return self._streams.pop(0)


async def test_the_mark_of_thinking_comes_once_though_a_replica_dies_right_after_it() -> None:
    opening: Any = [Started(5), Piece(0, "<think>")]
    end = Ended(0, "stop", 5, 2, 0)
    replicas: Any = Replicas([Stream([opening]), Stream([opening, Piece(0, "Hm.", (7,))]), Stream([Started(5), end])])
    answer = Answer(replicas, SharedReader(replicas), Ask(text="Hello"), 1.0)
    await answer.open()
    read: list[Item] = []
    async for batch in answer:
        read += batch
        if read[-1] == end:
            break
    assert read == [*opening, Piece(0, "Hm.", (7,)), end]
    assert [ask.produced_token_ids for ask in replicas.asks] == [(), (), (7,)]


async def failure(replicas: Any) -> ApiError:
    answer = Answer(replicas, SharedReader(replicas), Ask(text="Hello"), 1.0)
    try:
        await answer.open()
        async for _ in answer:
            pass
    except ApiError as error:
        return error
    raise AssertionError("it has not failed")


@pytest.mark.parametrize("made", [[], [Started(5)]])
async def test_a_request_that_kills_its_replicas_kills_no_third_one(made: list[Item]) -> None:
    replicas = Replicas([Stream(made) for _ in range(6)])
    error = await failure(replicas)
    assert (error.status, error.code, len(replicas.asks)) == (503, "model_unavailable", 2)


async def test_deaths_with_a_token_between_them_are_all_survived() -> None:
    streams = [Stream([Started(5), Piece(0, "a", (token,))]) for token in range(5)]
    end = Ended(0, "stop", 5, 6, 0)
    replicas: Any = Replicas([*streams, Stream([Started(5), end])])
    answer = Answer(replicas, SharedReader(replicas), Ask(text="Hello"), 1.0)
    await answer.open()
    read: list[Item] = []
    async for batch in answer:
        read += batch
        if read[-1] == end:
            break
    assert sum(isinstance(item, Piece) for item in read) == 5


@pytest.mark.parametrize("made", [[], [Started(5)], [Started(5), Piece(0, "a", (7,))]])
async def test_a_fault_of_a_replica_that_lives_is_told_at_once(
    made: list[Item], caplog: pytest.LogCaptureFixture
) -> None:
    fault = RayTaskError("generate", "Traceback: a secret", KeyError("secret")).as_instanceof_cause()
    replicas = Replicas([Stream(made, fault) for _ in range(6)])
    error = await failure(replicas)
    assert (error.status, error.code, len(replicas.asks)) == (500, "generation_failed", 1)
    assert "secret" not in error.message
    assert "KeyError" in caplog.text


class Call:
    """Of a replica that takes some time to embed."""

    def __init__(self, texts: Sequence[str], seconds: float) -> None:
        self.texts = texts
        self.cancelled = False
        self._seconds = seconds

    def __await__(self) -> Any:
        yield from asyncio.sleep(self._seconds).__await__()
        return Embedded(tuple((float(text),) for text in self.texts), len(self.texts))

    def cancel(self) -> None:
        """It does not go on."""
        self.cancelled = True


class Embedder:
    """A handle to such a replica."""

    def __init__(self, seconds: float) -> None:
        self.calls: list[Call] = []
        self._seconds = seconds
        self.embed = self

    def remote(self, texts: Sequence[str]) -> Call:
        """A call."""
        self.calls.append(Call(texts, self._seconds))
        return self.calls[-1]


def asking(embedder: Any) -> Asking:
    made = Asking(Settings().llm, 0.2)
    made._handles["default"] = embedder
    return made


async def test_many_texts_are_embedded_by_and_by() -> None:
    embedder = Embedder(0.05)
    texts = [str(number) for number in range(100)]
    made = await asking(embedder).embed("default", texts)
    assert [vector[0] for vector in made.vectors] == list(range(100))
    assert made.tokens == 100
    assert len(embedder.calls) == 7


async def test_what_takes_too_long_is_stopped() -> None:
    embedder = Embedder(5)
    with pytest.raises(ApiError) as refused:
        await asking(embedder).embed("default", ["1"] * 100)
    assert refused.value.status == 503
    assert [call.cancelled for call in embedder.calls] == [True]
    leaving = asyncio.create_task(asking(embedder).embed("default", ["1"]))
    await asyncio.sleep(0.05)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert [call.cancelled for call in embedder.calls] == [True, True]


def test_a_portion_is_short_and_every_text_is_in_one() -> None:
    texts = ["a" * PORTION_LENGTH * 2, *["b" * 1000] * 20, *["c"] * 40]
    made = list(portions(texts))
    assert [text for portion in made for text in portion] == texts
    assert all(len(portion) <= PORTION_TEXTS for portion in made)
    assert all(sum(map(len, portion)) <= PORTION_LENGTH for portion in made[1:])
    assert list(portions([])) == []
