"""Every metric of the product, under the name that dashboards use. Each process reports to its node's agent."""

from __future__ import annotations

from typing import Any

from ray.serve.metrics import Counter, Gauge, Histogram

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]


def _keys(*names: str) -> Any:
    """Ray takes tuples of any length, though it says that it takes one."""
    return names


HTTP_REQUESTS = Counter(
    "http_requests_total", description="Requests answered", tag_keys=_keys("method", "path", "status")
)
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds",
    description="From a request's arrival to the end of its answer",
    boundaries=SECONDS,
    tag_keys=_keys("method", "path", "status"),
)
LOGINS = Counter("rustygpt_auth_logins_total", description="Attempts to sign in", tag_keys=_keys("result"))
API_KEY_CHECKS = Counter(
    "rustygpt_api_key_checks_total",
    description="API keys that were remembered, looked_up in the database, refused by it, or malformed",
    tag_keys=_keys("result"),
)
API_LIMITED = Counter(
    "rustygpt_api_limited_total", description="Requests refused for a limit of a minute", tag_keys=_keys("type")
)

TURNS = Counter("rustygpt_turns_total", description="Answers that ended", tag_keys=_keys("model", "finish_reason"))
FIRST_TOKEN_SECONDS = Histogram(
    "rustygpt_turn_first_token_seconds",
    description="From the claim of a turn to its first text",
    boundaries=SECONDS,
    tag_keys=_keys("model"),
)
GENERATED_TOKENS = Counter("llm_generated_tokens_total", description="Tokens sampled", tag_keys=_keys("model"))
PROMPT_TOKENS = Counter("llm_prompt_tokens_total", description="Prompt tokens computed", tag_keys=_keys("model"))
CACHED_TOKENS = Counter("llm_cached_tokens_total", description="Prompt tokens reused", tag_keys=_keys("model"))
ACTIVE_SEQUENCES = Gauge("llm_active_sequences", description="Sequences in the batch", tag_keys=_keys("model"))
WAITING_REQUESTS = Gauge("llm_waiting_requests", description="Requests that wait", tag_keys=_keys("model"))
KV_USED_TOKENS = Gauge("llm_kv_used_tokens", description="Tokens in the KV cache", tag_keys=_keys("model"))
PREFIX_CACHE_BYTES = Gauge(
    "llm_prefix_cache_bytes", description="Prefixes kept outside the slots", tag_keys=_keys("model")
)
BATCH_TOKENS = Gauge("llm_batch_tokens", description="Rows of the latest step", tag_keys=_keys("model"))
KV_TOTAL_TOKENS = Gauge("llm_kv_total_tokens", description="Room in the KV cache", tag_keys=_keys("model"))
THREADS = Gauge(
    "llm_threads", description="Threads that compute: fewer while others use cores", tag_keys=_keys("model")
)
STEPS = Counter("llm_steps_total", description="Batches computed", tag_keys=_keys("model"))
STEP_SECONDS = Counter("llm_step_seconds_total", description="Time of all steps", tag_keys=_keys("model"))
PROMPT_TOKENS_ASKED = Counter(
    "llm_prompt_tokens_asked_total", description="Prompt tokens of all requests, reused or not", tag_keys=_keys("model")
)
PROMPT_TOKENS_ASIDE = Counter(
    "llm_prompt_tokens_aside_total",
    description="Tokens of long prompts computed beside the steps",
    tag_keys=_keys("model"),
)
PADDING_ROWS = Counter(
    "llm_padding_rows_total",
    description="Rows without meaning that made prompts of unequal length equal, where that takes less time",
    tag_keys=_keys("model"),
)
PREEMPTIONS = Counter(
    "llm_preemptions_total", description="Answers that gave their slot to another user", tag_keys=_keys("model")
)
DRAFTED_TOKENS = Counter("llm_drafted_tokens_total", description="Tokens guessed ahead", tag_keys=_keys("model"))
ACCEPTED_TOKENS = Counter("llm_accepted_tokens_total", description="Guesses that came true", tag_keys=_keys("model"))
FAILED_STEPS = Counter("llm_failed_steps_total", description="Steps that ended in an error", tag_keys=_keys("model"))

ROUTED = Counter(
    "rustygpt_routed_total",
    description="Requests given to one of several replicas. Result: affinity (it has their prefix), guarded (another "
    "has it, but is loaded), new (none has it)",
    tag_keys=_keys("model", "result"),
)

APPENDS = Counter("rustygpt_appends_total", description="Flushes committed to the event log")
APPEND_SECONDS = Histogram("rustygpt_append_duration_seconds", description="One flush, committed", boundaries=SECONDS)

SSE_CONNECTIONS = Gauge("sse_connections", description="Open event streams")
SSE_EVENTS_SENT = Counter("sse_events_sent_total", description="Events written to readers", tag_keys=_keys("type"))
SSE_EVENTS_DROPPED = Counter(
    "sse_events_dropped_total", description="Deltas that were merged into a later one", tag_keys=_keys("type")
)
SSE_QUEUE_DEPTH = Gauge("sse_queue_depth", description="Events that the slowest reader lacks")
SSE_QUEUE_OCCUPANCY = Gauge("sse_queue_occupancy_ratio", description="How full the slowest reader's queue is")
SSE_REPLAY_EVENTS = Counter(
    "rustygpt_sse_replay_events_total", description="Events sent again from history", tag_keys=_keys("type")
)
SSE_REPLAY_MS = Histogram(
    "rustygpt_sse_replay_duration_ms",
    description="From a reader's first missed event to the live end",
    boundaries=[seconds * 1000 for seconds in SECONDS],
)
