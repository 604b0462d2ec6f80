"""The batching engine. Knows neither HTTP, nor Ray, nor SQL; usable alone."""

from deployments.model.engine.engine import Engine, Generation
from deployments.model.engine.model_file import check_model_file
from deployments.model.engine.request import (
    EngineError,
    EngineOptions,
    EngineStats,
    Finish,
    FinishReason,
    GenerationRequest,
    ModelFileError,
    PromptRefused,
    PromptTooLong,
    QueueFull,
    TokenDelta,
)

__all__ = [
    "Engine",
    "EngineError",
    "EngineOptions",
    "EngineStats",
    "Finish",
    "FinishReason",
    "Generation",
    "GenerationRequest",
    "ModelFileError",
    "PromptRefused",
    "PromptTooLong",
    "QueueFull",
    "TokenDelta",
    "check_model_file",
]
