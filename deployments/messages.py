"""What processes say to each other. Both sides import it; nothing else is shared between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from deployments.prefixes import Prefix


@dataclass(frozen=True)
class TurnOffer:
    """The Gateway to a Model replica: write this answer, if nobody else has begun to. `prefix`, what its prompt begins
    with, is for the choice of the replica."""

    message_id: UUID
    prefix: Prefix


@dataclass(frozen=True)
class ModelDescription:
    """A Model replica to the Gateway: what it runs and how. `weights` is their format; `measured` says what was tried
    on its machine, with gains and losses; `engine` has the engine's counters. `verified` says what it does without on
    this machine, and why; `tuning` how far the measurement is."""

    model_id: str
    name: str
    file: str
    weights: str
    max_sequence_tokens: int
    max_slots: int
    n_threads: int
    n_gpu_layers: int
    hardware: dict[str, Any]
    measured: dict[str, Any]
    engine: dict[str, Any]
    cpu_variant: str | None = None
    own_kernels: list[str] = field(default_factory=list)
    verified: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)


def model_app(model_id: str) -> str:
    """Name of the Serve application that runs a model."""
    return f"model-{model_id}"


MODEL_DEPLOYMENT = "Model"

CANNOT_RUN = "cannot run on this machine"
"""How /readyz says that a model's replicas have found no way to run it, and waiting does not help."""
