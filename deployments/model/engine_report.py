"""The engine's figures as metrics of the deployment."""

from __future__ import annotations

import asyncio

from deployments.model.engine import EngineStats
from deployments.model.live_engine import LiveEngine
from deployments.observability import metrics

PERIOD_SECONDS = 1.0

GAUGES = (
    (metrics.ACTIVE_SEQUENCES, "running"),
    (metrics.WAITING_REQUESTS, "waiting"),
    (metrics.THREADS, "threads"),
    (metrics.BATCH_TOKENS, "batch_tokens"),
    (metrics.KV_USED_TOKENS, "kv_used_tokens"),
    (metrics.KV_TOTAL_TOKENS, "kv_total_tokens"),
    (metrics.PREFIX_CACHE_BYTES, "prefix_cache_bytes"),
)
COUNTERS = (
    (metrics.GENERATED_TOKENS, "decode_tokens_total"),
    (metrics.PROMPT_TOKENS, "prefill_tokens_total"),
    (metrics.PROMPT_TOKENS_ASIDE, "aside_tokens_total"),
    (metrics.PADDING_ROWS, "padding_rows_total"),
    (metrics.PROMPT_TOKENS_ASKED, "prompt_tokens_total"),
    (metrics.CACHED_TOKENS, "cached_tokens_total"),
    (metrics.STEPS, "steps_total"),
    (metrics.STEP_SECONDS, "step_seconds_total"),
    (metrics.PREEMPTIONS, "preemptions_total"),
    (metrics.DRAFTED_TOKENS, "drafted_tokens_total"),
    (metrics.ACCEPTED_TOKENS, "accepted_tokens_total"),
    (metrics.FAILED_STEPS, "failed_steps_total"),
)


async def report(live: LiveEngine, model_id: str) -> None:
    """Until cancelled: sets the gauges and lets the counters grow, once a period."""
    tags = {"model": model_id}
    before: EngineStats | None = None
    engine = live.current
    while True:
        if engine is not live.current:
            engine, before = live.current, None
        now = engine.stats()
        for gauge, name in GAUGES:
            gauge.set(getattr(now, name), tags=tags)
        for counter, name in COUNTERS:
            grown = getattr(now, name) - (getattr(before, name) if before else 0)
            if grown > 0:
                counter.inc(grown, tags=tags)
        before = now
        await asyncio.sleep(PERIOD_SECONDS)
