"""From waves to figures of the API: medians of rounds, and ratios of the medians, the product's over llama-server's."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from load.engine_figures import NAMES, Wave

SIDES = ("rival", "same", "auto")
WORDS = {"tokens_per_second": "tokens_per_second", "first_token_p50": "ttft_p50", "gap_p99": "itl_p99"}


def compared(waves: dict[str, dict[str, list[Wave]]]) -> dict[str, Any]:
    """Of one concurrency, for each kind of prompts that was measured."""
    measured = {kind: sides for kind, sides in waves.items() if sides["rival"]}
    medians = {
        kind: {side: {name: median(getattr(w, name) for w in found) for name in NAMES} for side, found in sides.items()}
        for kind, sides in measured.items()
    }
    ratios = {
        f"{kind}_{side}_{WORDS[name]}": round(values[side][name] / values["rival"][name], 3)
        for kind, values in medians.items()
        for side in ("same", "auto")
        for name in NAMES
    }
    rounds = {
        kind: {side: [asdict(w) for w in found] for side, found in sides.items()} for kind, sides in measured.items()
    }
    return {"medians": medians, "ratios": ratios, "rounds": rounds}


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The ratios that the project sets itself targets for. Those without a word before them are of the same weights and
    of prompts that have nothing in common."""
    result: dict[str, Any] = {}
    for concurrency, found in figures["at"].items():
        ratios = found["ratios"]
        named = {"": "short_same", "auto_": "short_auto", "shared_": "shared_same", "auto_shared_": "shared_auto"}
        result[concurrency] = {
            f"{prefix}{word}_ratio": ratios[f"{kind}_{word}"]
            for prefix, kind in named.items()
            for word in WORDS.values()
            if f"{kind}_{word}" in ratios
        }
    sessions = {side: median(values) for side, values in figures["sessions"].items()}
    rates = {path: median(values) for path, values in figures["rates"].items()}
    one_token = {
        kind: median(sides["product"]) / median(sides["litellm"]) for kind, sides in figures["one_token"].items()
    }
    return result | {
        "session_ratio": round(sessions["same"] / sessions["rival"], 3),
        "auto_session_ratio": round(sessions["auto"] / sessions["rival"], 3),
        "models_to_healthz_ratio": round(rates["/v1/models"] / rates["/healthz"], 3),
        "litellm_requests_ratio": round(one_token["repeated"], 3),
        "litellm_new_questions_ratio": round(one_token["new"], 3),
    }


def table(figures: dict[str, Any]) -> str:
    """The medians for people."""
    lines = [f"{'':>4}  {'prompts':<8}{'side':<7}{'tokens/s':>10}{'first token':>14}{'gap p99':>11}"]
    for concurrency, found in figures["at"].items():
        for kind, sides in found["medians"].items():
            for side, values in sides.items():
                rate, first, gap = (values[name] for name in NAMES)
                times = f"{1000 * first:>11.0f} ms{1000 * gap:>8.0f} ms"
                lines.append(f"{concurrency:>4}  {kind:<8}{side:<7}{rate:>10.1f}{times}")
    for side, values in figures["sessions"].items():
        lines.append(f"      session {side:<7}{median(values):>10.1f}")
    for path, values in figures["rates"].items():
        lines.append(f"GET {path:<12} {median(values):>8.0f} per second")
    for kind, sides in figures["one_token"].items():
        for side, values in sides.items():
            lines.append(f"answers of one token, {kind:<9}{side:<8}{median(values):>8.1f} per second")
    lines.append(f"cores that the idle product takes while llama-server is measured: {figures['idle_product_cores']}")
    return "\n".join(lines)
