"""The bare engine in a process of its own: what the model can do on this machine without the product.

    python -m load.engine_direct

It takes the configuration from its environment, as the product does. Standard input: a line for each job: a list of
lanes, each a list of questions. Standard output: `ready`, then a line for each job: its chats.
It computes only during a job, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from deployments.config import Model, load_settings
from deployments.model.engine import Engine, Finish, GenerationRequest
from load.client import GOOD_ENDS, LoadError
from load.figures import Chat
from load.measured import load_measured

Lanes = list[list[str]]


class DirectEngine:
    """The other side of the pipe: starts the process and gives it jobs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "load.engine_direct"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[1],
            start_new_session=True,  # Ctrl-C is for the driver, which then closes the pipe
        )
        self._answer()

    def run(self, lanes: Lanes) -> list[Chat]:
        """All lanes at once, the questions of a lane one after another."""
        return [Chat(**chat) for chat in self._exchange(lanes)]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: object) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise LoadError(f"the engine's process ended with code {self._process.wait()}")
        return json.loads(line)


async def _chat(engine: Engine, model: Model, question: str) -> Chat:
    system = [{"role": "system", "content": model.system_prompt}] if model.system_prompt else []
    sampling = model.model_dump(include={"max_tokens", "temperature", "top_p", "top_k", "repeat_penalty"})
    started, first_token = time.perf_counter(), 0.0
    prompt = engine.render_chat([*system, {"role": "user", "content": question}])
    async for item in engine.generate(GenerationRequest(tuple(prompt), **sampling)):
        if isinstance(item, Finish):
            if item.reason not in GOOD_ENDS:
                raise LoadError(f"the answer ended with {item.reason}: {item.message}")
            ended = time.perf_counter()
            return Chat(started, first_token or ended, ended, item.completion_tokens)
        first_token = first_token or time.perf_counter()
    raise AssertionError("a generation ends with a Finish")


async def _job(engine: Engine, model: Model, lanes: Lanes) -> list[Chat]:
    async def one_after_another(questions: list[str]) -> list[Chat]:
        return [await _chat(engine, model, question) for question in questions]

    done = await asyncio.gather(*map(one_after_another, lanes))
    return [chat for lane in done for chat in lane]


def main() -> None:
    """Works until its input ends."""
    llm = load_settings().llm
    model = llm.models[llm.default_model]
    engine = load_measured(llm, model).engine
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(
            json.dumps([asdict(chat) for chat in asyncio.run(_job(engine, model, json.loads(line)))]),
            flush=True,
        )
    engine.close()


if __name__ == "__main__":
    main()
