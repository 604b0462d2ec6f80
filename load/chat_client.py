"""Streams of chat completions with the time of every piece: one client for whatever speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from load.client import LoadError
from load.completion_client import Stream

Message = dict[str, str]
# llama-server's and our names for the same; `ignore_eos` makes every answer as long as it may be.
COMMON: dict[str, Any] = {
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass
class Answer(Stream):
    """What the server says of the prompt, beside the times."""

    prompt_tokens: int = 0
    cached_tokens: int = 0


class ChatClient:
    """One model of one server; a connection for each request. It reads no more of an event than it needs: what it
    costs, the server under measurement lacks."""

    def __init__(self, url: str, model: str, key: str = "") -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._host, self._port, self._model = address.hostname, address.port, model
        self._head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\nConnection: close\r\n"
        )

    async def stream(self, messages: Sequence[Message], tokens: int, sampling: dict[str, Any]) -> Answer:
        """Asks for exactly `tokens` tokens. Raises LoadError when they do not come."""
        body = orjson.dumps(
            {"model": self._model, "messages": list(messages), "max_tokens": tokens} | COMMON | sampling
        )
        answer = Answer(time.perf_counter())
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
            writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            try:
                await _check(reader)
                async for event in _events(reader):
                    _note(answer, event)
            finally:
                writer.close()
        except (OSError, EOFError) as error:
            raise LoadError(f"the connection to {self._host}:{self._port} was lost: {error}") from error
        answer.ended = time.perf_counter()
        if answer.tokens != tokens or not answer.pieces:
            raise LoadError(f"{answer.tokens} tokens came instead of {tokens}")
        return answer


def _note(answer: Answer, event: bytes) -> None:
    # Both servers write JSON without blanks.
    if b'"content":"' in event and b'"content":""' not in event:
        answer.pieces.append(time.perf_counter())
    if b'"usage":{' in event:
        usage = orjson.loads(event.removeprefix(b"data: "))["usage"]
        answer.tokens, answer.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    elif b'"error":{' in event:
        raise LoadError(f"the answer failed: {event.decode()}")


async def _check(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise LoadError(f"{head.decode('latin-1')}{(await reader.read(2000)).decode('latin-1')}")


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Blocks of a chunked stream of events. A proxy may have cut the chunks anew, in the middle of an event."""
    rest = b""
    while size := int(await reader.readline() or b"0", 16):
        data = await reader.readexactly(size + 2)
        *events, rest = (rest + data[:-2]).split(b"\n\n")
        for event in events:
            yield event
