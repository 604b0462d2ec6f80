"""What an operator sees of the models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ModelState(BaseModel):
    """One configured model, as one of its replicas describes it; without `replica` none answers now.

    `replica.measured.weights` says which number formats were tried, their loss of quality against the given file
    (perplexity_ratio, divergence_nats) and their gain of speed at 1, 8 and 16 answers at once; `replica.weights` is
    the format chosen. `replica.verified` says what the model is run without on that machine, and which ways to run it
    failed and how; `replica.tuning` how far the background measurement is. `readiness` is what all its replicas
    announce: how many are in which state, and why those that cannot run it cannot.
    """

    id: str
    status: str
    weights_policy: str
    readiness: dict[str, Any]
    replica: dict[str, Any] | None


class ModelStates(BaseModel):
    """All configured models."""

    models: list[ModelState]
