"""From streams to figures: what a wave of requests was like, and how sides compare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

from load.client import LoadError
from load.completion_client import SAMPLED, CompletionClient, Stream
from load.workloads import Prompts

LONG_PROMPT_TOKENS = 4000
RUNNING, RUNNING_TOKENS = 8, 2000
NAMES = ("tokens_per_second", "first_token_p50", "gap_p99")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Wave:
    """Requests sent at once: output tokens a second from the first sent to the last ended; seconds to the first token,
    median; seconds between pieces, 99th percentile."""

    tokens_per_second: float
    first_token_p50: float
    gap_p99: float

    @classmethod
    def of(cls, streams: Sequence[Stream]) -> Self:
        """Figures of these streams."""
        seconds = max(s.ended for s in streams) - min(s.sent for s in streams)
        gaps = [gap for s in streams for gap in s.gaps()]
        return cls(
            sum(s.tokens for s in streams) / seconds,
            median(s.first_token_seconds for s in streams),
            percentile(gaps, 0.99),
        )


def compared(waves: dict[str, dict[str, list[Wave]]], bounds: list[float], engine: dict[str, Any]) -> dict[str, Any]:
    """Medians of the rounds, and ratios of the medians, both sides of the engine over llama-server. `engine` are the
    counters of the side with the same weights."""
    medians = {
        kind: {side: {name: median(getattr(w, name) for w in found) for name in NAMES} for side, found in sides.items()}
        for kind, sides in waves.items()
        if sides["rival"]
    }
    ratios = {
        f"{kind}_{side}_{name}": round(medians[kind][side][name] / medians[kind]["rival"][name], 3)
        for kind in medians
        for side in ("same", "auto")
        for name in NAMES
    }
    ratios["ceiling"] = round(medians["short"]["same"]["tokens_per_second"] / median(bounds), 3)
    ratios["python_share"] = round(engine["python_seconds_total"] / engine["step_seconds_total"], 4)
    rounds = {
        kind: {side: [asdict(w) for w in found] for side, found in sides.items()} for kind, sides in waves.items()
    }
    return {"medians": medians, "ratios": ratios, "bound": median(bounds), "rounds": rounds}


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The ratios that the project sets itself targets for. A concurrency's throughput ratio is the lower of its two
    kinds of prompts, where both were measured."""
    result: dict[str, Any] = {}
    for concurrency, found in figures["at"].items():
        ratios = found["ratios"]

        def worst(side: str, ratios: dict[str, float] = ratios) -> float:
            kinds = (f"{kind}_{side}_tokens_per_second" for kind in ("short", "shared"))
            return min(ratios[kind] for kind in kinds if kind in ratios)

        result[concurrency] = {
            "same_ratio": worst("same"),
            "auto_ratio": worst("auto"),
            "ttft_p50_ratio": ratios["short_auto_first_token_p50"],
            "itl_p99_ratio": ratios["short_auto_gap_p99"],
            "same_ttft_p50_ratio": ratios["short_same_first_token_p50"],
            "same_itl_p99_ratio": ratios["short_same_gap_p99"],
            "shared_ttft_p50_ratio": ratios.get("shared_auto_first_token_p50"),
            "same_shared_ttft_p50_ratio": ratios.get("shared_same_first_token_p50"),
            "ceiling_ratio": ratios["ceiling"],
            "python_share": ratios["python_share"],
        }
    sessions = {side: median(values) for side, values in figures["sessions"].items()}
    result["ceiling_ratio"] = min(found["ratios"]["ceiling"] for found in figures["at"].values())
    result["session_ratio"] = round(sessions["auto"] / sessions["rival"], 3)
    result["same_session_ratio"] = round(sessions["same"] / sessions["rival"], 3)
    long_prompt = figures["long_prompt_itl_p99"]
    result["long_prompt_itl_p99_ratio"] = {side: round(median(values), 2) for side, values in long_prompt.items()}
    return result


def table(figures: dict[str, Any]) -> str:
    """The medians for people."""
    lines = [f"{'':>4}  {'prompts':<8}{'side':<7}{'tokens/s':>10}{'first token':>13}{'gap p99':>10}"]
    for concurrency, found in figures["at"].items():
        for kind, sides in found["medians"].items():
            for side, values in sides.items():
                rate, first, gap = (values[name] for name in NAMES)
                lines.append(
                    f"{concurrency:>4}  {kind:<8}{side:<7}{rate:>10.1f}{1000 * first:>10.0f} ms{1000 * gap:>7.0f} ms"
                )
        lines.append(f"{concurrency:>4}  short   bound  {found['bound']:>10.1f}")
    for side, values in figures["sessions"].items():
        lines.append(f"      session {side:<7}{median(values):>10.1f}")
    return "\n".join(lines)


async def long_prompt_ratio(client: CompletionClient, prompts: Prompts) -> float:
    """How much larger the 99th percentile of the gaps of 8 running streams is while a prompt of 4,000 tokens is
    computed than in the 5 seconds before. Raises LoadError when they end too early."""
    streams = [Stream(time.perf_counter()) for _ in range(RUNNING)]
    # Made before: it takes a processor a second, which the server would lack.
    long_prompt = prompts.fresh(LONG_PROMPT_TOKENS)
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(client.fill(stream, prompt, RUNNING_TOKENS, SAMPLED, str(place)))
            for place, (stream, prompt) in enumerate(zip(streams, prompts.short(RUNNING), strict=True))
        ]
        while not all(len(stream.pieces) > 20 for stream in streams):  # noqa: ASYNC110 they set no event
            await asyncio.sleep(0.05)
        quiet_began = time.perf_counter()
        await asyncio.sleep(5.0)
        began = time.perf_counter()
        await client.stream(long_prompt, 1, SAMPLED, "long")
        ended = time.perf_counter()
        ended_early = any(task.done() for task in running)
        for task in running:
            task.cancel()
    if ended_early:
        raise LoadError("running streams ended before the long prompt was computed")
    quiet = [gap for stream in streams for gap in stream.gaps(quiet_began, began)]
    disturbed = [gap for stream in streams for gap in stream.gaps(began, ended)]
    return percentile(disturbed, 0.99) / percentile(quiet, 0.99)
