"""What processes say to each other. Both sides import it; nothing else is shared between them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class TurnOffer:
    """The Gateway to a Model replica: write this answer, if nobody else has begun to."""

    message_id: UUID


def model_app(model_id: str) -> str:
    """Name of the Serve application that runs a model."""
    return f"model-{model_id}"


MODEL_DEPLOYMENT = "Model"
