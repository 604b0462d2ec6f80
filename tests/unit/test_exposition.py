"""Metrics of several replicas become one exposition."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from deployments.observability.exposition import merge

AGENT = """\
# HELP ray_http_requests_total Requests answered
# TYPE ray_http_requests_total counter
ray_http_requests_total{method="GET",path="/",status="200",replica="a",WorkerId="1"} 3.0
ray_http_requests_total{method="GET",path="/",status="200",replica="b",WorkerId="2"} 4.0
# HELP ray_rustygpt_append_duration_seconds One flush
# TYPE ray_rustygpt_append_duration_seconds histogram
ray_rustygpt_append_duration_seconds_bucket{le="0.01",replica="a"} 1.0
ray_rustygpt_append_duration_seconds_bucket{le="+Inf",replica="a"} 2.0
ray_rustygpt_append_duration_seconds_count{replica="a"} 2.0
ray_rustygpt_append_duration_seconds_sum{replica="a"} 99.0
# TYPE ray_node_cpu gauge
ray_node_cpu{} 1.0
"""


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_replicas_and_nodes_are_summed_under_our_names() -> None:
    merged = samples(merge([AGENT, AGENT]))
    assert merged["http_requests_total", ""] == 14
    assert merged["rustygpt_append_duration_seconds_bucket", "+Inf"] == 4
    assert merged["rustygpt_append_duration_seconds_count", ""] == 4


def test_what_is_not_ours_or_is_wrong_is_left_out() -> None:
    text = merge([AGENT])
    assert "node_cpu" not in text
    assert "_sum" not in text
    assert "replica" not in text


def test_node_that_does_not_answer_is_left_out() -> None:
    assert samples(merge([AGENT, ""]))["http_requests_total", ""] == 7
