"""The engine in this process as a replica runs it once the machine has been measured."""

from __future__ import annotations

from uuid import uuid4

from deployments.config import Llm, Model
from deployments.model.engine.verification.run_config import RunConfig
from deployments.model.loading import LoadedModel, Loader


def load_measured(llm: Llm, model: Model) -> LoadedModel:
    """Loads a model with the settings that are fastest here, measured now where that has not been done: minutes.
    Raises EngineError, OSError."""
    loader = Loader(llm, model, uuid4().hex)
    loader.tunings(RunConfig()).obtain(model.file(), model.weights)
    return loader.load()
