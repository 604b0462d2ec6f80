"""What the engine refuses, and why. Every message may be shown to the person who asked."""

from __future__ import annotations


class EngineError(Exception):
    """Base of the engine's errors."""


class ModelFileError(EngineError):
    """The model file, or an adapter for it, cannot be used; the message says why."""


class InvalidRequest(EngineError):
    """A parameter is out of its range, or a grammar or schema cannot be used. Attribute: `param`, the field's name."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


class QueueFull(EngineError):
    """Too many requests wait already. Attribute: `retry_after_seconds`, when one of them has likely begun."""

    def __init__(self, waiting: int, retry_after_seconds: float) -> None:
        super().__init__(f"{waiting} requests wait already; try again in about {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class PromptRefused(EngineError):
    """The model's chat template does not take these messages; the message says why."""


class PromptTooLong(EngineError):
    """The prompt leaves no room for an answer. Attributes: `prompt_tokens`, `limit_tokens`."""

    def __init__(self, prompt_tokens: int, limit_tokens: int) -> None:
        super().__init__(f"the prompt has {prompt_tokens} tokens; this model takes at most {limit_tokens}")
        self.prompt_tokens = prompt_tokens
        self.limit_tokens = limit_tokens


class NoEmbeddings(EngineError):
    """The model was not made for embeddings."""


class GrammarTooSlow(EngineError):
    """A token of an answer that follows a grammar, or its beginning, took too long."""

    def __init__(self) -> None:
        super().__init__(
            "the grammar or JSON schema of this answer takes too long: what was written can be read in too many ways. "
            "Let repeated and alternative parts begin or end with characters of their own, and repeat less"
        )
