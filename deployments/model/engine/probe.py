"""Measures how fast a model runs in one way, in a process of its own: threads that wait otherwise need another process,
and a setting that llama.cpp does not survive ends nothing else.

    python -m deployments.model.engine.probe '{"model": "...", "options": {...}, "long": false}'

For each line of its input it measures once and prints a line of JSON: {"prefill": seconds a token, "decode": {"<rows>":
seconds a step}}; with "long" only {"prefill"}, that of a prompt that needs several batches. Probes that are asked in
turns see the same moods of a busy machine.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from deployments.model.engine.batch import Batch
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import open_context
from deployments.model.engine.errors import EngineError
from deployments.model.engine.huge_pages import huge_pages
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import EngineOptions

ROWS = (1, 8, 16)
PROMPT_TOKENS, ANSWER_TOKENS = 60, 64
STEPS = 6
PREFILL_TOKENS, LONG_TOKENS = 120, 1024
# The last slot is for prompts, the others for answers.
SIZES: dict[str, Any] = {"max_slots": max(ROWS) + 1, "max_sequence_tokens": 256}
LONG_SIZES: dict[str, Any] = {"max_slots": 1, "max_sequence_tokens": LONG_TOKENS}
# Longest wait for a measurement, loading included in the first.
PROBE_SECONDS = 120.0
# What the other processes of a busy service take: 40 % of a core, in slices of a millisecond. Ends with who began it.
COMPETITOR = (
    "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent:\n    end = time.perf_counter() + 0.001\n"
    "    while time.perf_counter() < end: pass\n    time.sleep(0.0015)"
)


@dataclass(frozen=True)
class Speed:
    """What a probe measured: seconds a prompt's token, and seconds a step by its rows (none for a long prompt)."""

    prefill: float
    decode: dict[int, float]

    def tokens_per_second(self, concurrency: int) -> float:
        """Output tokens a second of so many requests at once, each of 60 tokens of prompt and 64 of answer."""
        seconds = concurrency * PROMPT_TOKENS * self.prefill + ANSWER_TOKENS * self.decode[concurrency]
        return concurrency * ANSWER_TOKENS / seconds

    @property
    def overall(self) -> float:
        """One figure, the higher the faster."""
        return geometric_mean(map(self.tokens_per_second, self.decode)) if self.decode else 1 / self.prefill


class Probe:
    """One way to run a model, ready to be measured again and again."""

    def __init__(self, model: Path, options: dict[str, Any], wait_policy: str = "default", long: bool = False) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        if wait_policy != "default":
            environment["OMP_WAIT_POLICY"] = wait_policy
        sizes = LONG_SIZES if long else SIZES
        task = json.dumps({"model": str(model), "options": options | sizes, "long": long})
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, task],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def measure(self) -> Speed:
        """Raises EngineError when the model does not run that way here, or too slowly."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        try:
            asked.write("\n")
        except OSError as error:
            raise EngineError("it does not run that way here") from error
        ready, _, _ = select.select([answers], [], [], PROBE_SECONDS)
        if not ready:
            raise EngineError(f"a measurement took longer than {PROBE_SECONDS:.0f} s")
        line = answers.readline()
        if not line:
            raise EngineError("it does not run that way here")
        found = json.loads(line)
        return Speed(found["prefill"], {int(rows): seconds for rows, seconds in found.get("decode", {}).items()})

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def competitor(wanted: bool) -> Iterator[None]:
    """Where `wanted`, somebody else uses the cores meanwhile."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", COMPETITOR])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Runner:
    """A model and its context, whose steps are measured: the process's side."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        with huge_pages(options.huge_pages):
            model = load_model(path, options.n_gpu_layers, mapped=not options.huge_pages)
        self._context = open_context(model, options, options.max_sequence_tokens)
        self._memory = llama.llama_get_memory(self._context)
        self._batch = Batch(options.n_batch, options.max_slots)
        self._prompt_slot = options.max_slots - 1
        self._unprompted = list(range(self._prompt_slot))

    def long_prompt(self) -> dict[str, Any]:
        """Seconds a token of a prompt that needs several batches."""
        return {"prefill": self.prefill(LONG_TOKENS)}

    def answers(self) -> dict[str, Any]:
        """Seconds a token of a prompt, seconds of steps of so many answers at once, whose prompts stay."""
        return {"prefill": self.prefill(PREFILL_TOKENS), "decode": {rows: self.decode(rows) for rows in ROWS}}

    def prefill(self, tokens: int) -> float:
        """Seconds a token of a prompt of so many."""
        llama.llama_memory_seq_rm(self._memory, self._prompt_slot, -1, -1)
        began = time.perf_counter()
        for start in range(0, tokens, self._batch.capacity):
            self._rows([self._prompt_slot], min(tokens - start, self._batch.capacity), start)
        return (time.perf_counter() - began) / tokens

    def decode(self, rows: int) -> float:
        """Seconds a step of so many answers at once, fewer than there are slots."""
        while self._unprompted:
            self._rows([self._unprompted.pop()], PROMPT_TOKENS, 0)
        slots = list(range(rows))
        for slot in slots:
            llama.llama_memory_seq_rm(self._memory, slot, PROMPT_TOKENS, -1)
        return median(self._rows(slots, 1, PROMPT_TOKENS + number) for number in range(STEPS))

    def _rows(self, slots: list[int], tokens: int, start: int) -> float:
        """Computes so many tokens of each slot; returns the seconds."""
        self._batch.clear()
        for slot in slots:
            self._batch.add(slot, range(start + 10, start + 10 + tokens), start, 1)
        began = time.perf_counter()
        if llama.llama_decode(self._context, self._batch.struct) != 0:
            raise EngineError("a batch failed")
        llama.llama_synchronize(self._context)
        return time.perf_counter() - began


def main() -> None:
    """The process's side: until its input ends."""
    task = json.loads(sys.argv[1])
    runner = Runner(Path(task["model"]), EngineOptions(**task["options"]))
    measure: Callable[[], dict[str, Any]] = runner.long_prompt if task["long"] else runner.answers
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
