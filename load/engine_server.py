"""The engine behind the thinnest HTTP there is, in the words of llama-server's `/completion`, so that one client can
measure both: `python -m load.engine_server --model FILE --port N`. For measurements only: no limits, no sign-in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import uvloop

from deployments.model.engine import Engine, EngineOptions, Finish, GenerationRequest


def _request(body: dict[str, Any]) -> GenerationRequest:
    return GenerationRequest(
        prompt_token_ids=tuple(body["prompt"]),
        max_tokens=body["n_predict"],
        temperature=body["temperature"],
        top_k=body["top_k"],
        top_p=body["top_p"],
        min_p=body["min_p"],
        repeat_penalty=body["repeat_penalty"],
        ignore_eos=body["ignore_eos"],
        user=body.get("user", ""),
    )


class EngineServer:
    """`POST /completion` (SSE, until the connection closes), `GET /health`, `GET /stats`; a request a connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        length = next((int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        kind = "text/event-stream" if path == "/completion" else "application/json"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())
        if path == "/completion":
            await self._complete(json.loads(body), writer)
        else:
            writer.write(json.dumps(asdict(self._engine.stats()) if path == "/stats" else {"status": "ok"}).encode())
        with contextlib.suppress(ConnectionError):  # the reader has left
            await writer.drain()
        writer.close()

    async def _complete(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        async for item in self._engine.generate(_request(body)):
            data: dict[str, Any] = {"content": "", "stop": isinstance(item, Finish)}
            if isinstance(item, Finish):
                data |= {"tokens_predicted": item.completion_tokens, "tokens_cached": item.cached_tokens}
            else:
                data["content"] = item.text
            if writer.is_closing():
                return  # the reader has left: leaving the generation ends it
            writer.write(b"data: " + orjson.dumps(data) + b"\n\n")


async def _serve(engine: Engine, port: int) -> None:
    server = await asyncio.start_server(EngineServer(engine).answer, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={}, help="EngineOptions as JSON")
    args = parser.parse_args()
    uvloop.run(_serve(Engine(args.model, EngineOptions(**args.options)), args.port))


if __name__ == "__main__":
    main()
