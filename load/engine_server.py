"""The engine behind the thinnest HTTP there is, in the words of llama-server's `/completion`, so that one client can
measure both: `python -m load.engine_server --model FILE --port N`. For measurements only: no limits, no sign-in.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

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
    """Routes `/completion` (SSE), `/health` and `/stats`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """An event for each delta; the last one has the number of tokens."""
        generation = self._engine.generate(_request(await http.json()))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        async for item in generation:
            if isinstance(item, Finish):
                data: dict[str, Any] = {
                    "content": "",
                    "stop": True,
                    "tokens_predicted": item.completion_tokens,
                    "tokens_cached": item.cached_tokens,
                }
            else:
                data = {"content": item.text, "stop": False}
            await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        return response

    async def health(self, _: web.Request) -> web.Response:
        """The model is loaded."""
        return web.json_response({"status": "ok"})

    async def stats(self, _: web.Request) -> web.Response:
        """The engine's counters."""
        return web.json_response(asdict(self._engine.stats()))


async def _serve(engine: Engine, port: int) -> None:
    server = EngineServer(engine)
    app = web.Application()
    app.router.add_post("/completion", server.complete)
    app.router.add_get("/health", server.health)
    app.router.add_get("/stats", server.stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={}, help="EngineOptions as JSON")
    args = parser.parse_args()
    asyncio.run(_serve(Engine(args.model, EngineOptions(**args.options)), args.port))


if __name__ == "__main__":
    main()
