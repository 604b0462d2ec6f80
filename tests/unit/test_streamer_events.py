"""The contract of events, and what dashboards ask of the streams."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from ray.serve.metrics import Counter, Gauge, Histogram

from deployments import events
from deployments.config import ConfigError, load_settings
from deployments.observability import metrics

ID = "0198c0de-0000-7000-8000-000000000001"
AT = "2026-01-02T03:04:05.678901Z"
DASHBOARD = Path(__file__).parents[2] / "k8s" / "grafana" / "rustygpt-sse.json"
DONE = {"message_id": ID, "root_id": ID, "conversation_id": ID, "finish_reason": "stop", "usage": None}


def both(kind: str, payload: dict[str, Any]) -> bool:
    """Whether the models and the published schema take an event; they must agree."""
    event = {"type": kind, "payload": payload}
    try:
        events.validate(json.dumps(event))
        by_models = True
    except ValidationError:
        by_models = False
    schema = json.loads(json.dumps(events.json_schema()))
    assert jsonschema.Draft202012Validator(schema).is_valid(event) == by_models
    return by_models


def test_schema_is_a_schema_of_every_event() -> None:
    schema = events.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["discriminator"]["mapping"]) == set(events.PAYLOADS)


def test_event_as_the_log_has_it_is_taken() -> None:
    assert both("message.done", DONE)
    assert both("membership.changed", {"conversation_id": ID, "user_id": ID, "role": None, "action": "removed"})
    assert both("typing.update", {"conversation_id": ID, "root_id": ID, "user_id": ID, "expires_at": AT})
    assert both("stream.reset", {"reason": "log_replaced"})


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("message.done", DONE | {"more": 1}),
        ("message.done", {name: value for name, value in DONE.items() if name != "usage"}),
        ("message.done", DONE | {"finish_reason": "stop_sequence"}),
        ("message.done", DONE | {"usage": {"prompt_tokens": "1", "completion_tokens": 1, "total_tokens": 2}}),
        ("unread.update", {"conversation_id": ID, "root_id": ID, "unread": -1, "last_activity_at": AT}),
        ("message.finished", DONE),
    ],
)
def test_any_other_event_is_refused(kind: str, payload: dict[str, Any]) -> None:
    assert not both(kind, payload)


def test_page_about_events_names_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    assert set(re.findall(r"^\| `([a-z]+\.[a-z]+|error)` \|", page, re.MULTILINE)) == set(events.PAYLOADS)


def test_dashboard_of_streams_asks_only_for_metrics_that_the_product_has() -> None:
    known = set()
    for metric in vars(metrics).values():
        if isinstance(metric, (Counter, Gauge, Histogram)):
            name = metric.info["name"]
            known |= {f"{name}_bucket", f"{name}_count"} if isinstance(metric, Histogram) else {name}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = re.findall(
        r"\b(?:rustygpt|sse)_\w+", " ".join(t["expr"] for p in dashboard["panels"] for t in p["targets"])
    )
    assert dashboard["uid"] == "rustygpt-sse"
    assert {"rustygpt_sse_replay_events_total", "rustygpt_sse_replay_duration_ms_bucket"} <= set(asked) <= known


@pytest.mark.parametrize(("given", "kept"), [("-1", 0.0), ("0.5", 0.5), ("7", 1.0)])
def test_warning_ratio_is_clamped(monkeypatch: pytest.MonkeyPatch, given: str, kept: float) -> None:
    monkeypatch.setenv("RUSTYGPT__SSE__BACKPRESSURE__WARN_QUEUE_RATIO", given)
    assert load_settings().sse.backpressure.warn_queue_ratio == kept


def test_unknown_strategy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTYGPT__SSE__BACKPRESSURE__DROP_STRATEGY", "drop_everything")
    with pytest.raises(ConfigError, match=r"sse\.backpressure\.drop_strategy.*'catch_up' or 'drop_tokens'"):
        load_settings()
