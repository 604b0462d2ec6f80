"""A chat completion from items: chunks of a stream, or the whole. A function of what is given alone: every Gateway
makes the same chunks of the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deployments.gateway.v1.errors import ApiError, error_body
from deployments.gateway.v1.reasoning import ReasoningShare
from deployments.generation import Ended, Item, Json, Logprob, Piece
from deployments.tool_syntax import AnswerParser, CallArguments, CallStarted, Part, ReasoningPart, TextPart


@dataclass(frozen=True)
class Frame:
    """What all chunks of a completion share. `tool_names` are those that the answer may call; only once, unless
    `parallel`."""

    id: str
    created: int
    model: str
    tool_names: tuple[str, ...] = ()
    parallel: bool = True
    n: int = 1
    logprobs: bool = False
    include_usage: bool = False
    warnings: tuple[str, ...] = ()
    metadata: Json | None = None

    def body(self, kind: str) -> Json:
        """The fields that come first."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


@dataclass
class _Choice:
    """One answer while it is made."""

    parser: AnswerParser
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[Json] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    unsent_logprobs: list[Json] = field(default_factory=list)
    share: ReasoningShare = field(default_factory=ReasoningShare)
    has_role: bool = False
    ended: Ended | None = None


class ChatFold:
    """Takes items, gives chunks; `whole` is the completion once all have ended."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._choices = [
            _Choice(AnswerParser(frame.tool_names, f"{frame.id}:{n}", frame.parallel)) for n in range(frame.n)
        ]

    def feed(self, batch: Sequence[Item]) -> list[Json]:
        """The chunks of a batch; after the last end, with `include_usage`, also that of the usage."""
        chunks: list[Json] = []
        for item in batch:
            if isinstance(item, Piece):
                choice = self._choices[item.index]
                choice.share.characters += len(item.text)
                choice.unsent_logprobs += map(logprob_json, item.logprobs)
                chunks += self._parts(item.index, choice.parser.feed(item.text))
            elif isinstance(item, Ended):
                chunks += self._end(item)
        return chunks

    @property
    def usage(self) -> Json:
        """Tokens so far: all, once all have ended."""
        ended = [choice.ended for choice in self._choices if choice.ended]
        prompt = max((end.prompt_tokens for end in ended), default=0)
        completion = sum(end.completion_tokens for end in ended)
        cached = max((end.cached_tokens for end in ended), default=0)
        reasoning = sum(choice.share.tokens(choice.ended) for choice in self._choices if choice.ended)
        return usage_json(prompt, completion, cached, reasoning)

    def whole(self) -> Json:
        """The completion. Raises ApiError where one of the answers failed."""
        choices: list[Json] = []
        for index, choice in enumerate(self._choices):
            assert choice.ended is not None, "it is complete"
            if failed := failure(choice.ended):
                raise failed
            message: Json = {"role": "assistant", "content": "".join(choice.text), "refusal": None}
            if choice.reasoning:
                message["reasoning_content"] = "".join(choice.reasoning)
            if choice.calls:
                message["tool_calls"] = choice.calls
                message["content"] = message["content"] or None
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": {"content": choice.logprobs, "refusal": None} if self._frame.logprobs else None,
                    "finish_reason": _finish_reason(choice),
                }
            )
        made = self._frame.body("chat.completion") | {"choices": choices, "usage": self.usage}
        if self._frame.warnings:
            made["warnings"] = self._frame.warnings
        if self._frame.metadata is not None:
            made["metadata"] = self._frame.metadata
        return made

    def _end(self, end: Ended) -> list[Json]:
        choice = self._choices[end.index]
        chunks = self._parts(end.index, choice.parser.finish())
        choice.ended = end
        if failed := failure(end):
            return [*chunks, error_body(failed)]
        if not choice.has_role or choice.unsent_logprobs:
            chunks.append(self._chunk(end.index, {"content": ""}))
        chunks.append(self._chunk(end.index, {}, _finish_reason(choice)))
        if self._frame.include_usage and all(choice.ended for choice in self._choices):
            chunks.append(self._frame.body("chat.completion.chunk") | {"choices": [], "usage": self.usage})
        return chunks

    def _parts(self, index: int, parts: Sequence[Part]) -> list[Json]:
        choice = self._choices[index]
        chunks: list[Json] = []
        for part in parts:
            match part:
                case TextPart(text):
                    choice.text.append(text)
                    delta: Json = {"content": text}
                case ReasoningPart(text):
                    choice.reasoning.append(text)
                    choice.share.reasoning_characters += len(text)
                    delta = {"reasoning_content": text}
                case CallStarted(number, call_id, name):
                    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
                    choice.calls.append(call)
                    shown = {"index": number, **call, "function": dict(call["function"])}
                    delta = {"tool_calls": [shown]}
                case CallArguments(number, text):
                    choice.calls[number]["function"]["arguments"] += text
                    delta = {"tool_calls": [{"index": number, "function": {"arguments": text}}]}
            chunks.append(self._chunk(index, delta))
        return chunks

    def _chunk(self, index: int, delta: Json, finish_reason: str | None = None) -> Json:
        choice = self._choices[index]
        made = self._frame.body("chat.completion.chunk")
        if not choice.has_role and finish_reason is None:
            choice.has_role = True
            delta = {"role": "assistant", "content": None} | delta
            if self._frame.warnings and index == 0:
                made["warnings"] = self._frame.warnings
        logprobs = None
        if self._frame.logprobs and choice.unsent_logprobs:
            logprobs = {"content": choice.unsent_logprobs, "refusal": None}
            choice.logprobs += choice.unsent_logprobs
            choice.unsent_logprobs = []
        made["choices"] = [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}]
        if self._frame.include_usage:
            made["usage"] = None
        return made


def _finish_reason(choice: _Choice) -> str:
    assert choice.ended is not None
    return "tool_calls" if choice.calls and choice.ended.reason == "stop" else choice.ended.reason


def failure(end: Ended) -> ApiError | None:
    """Why an answer is none: an error, a deadline, or somebody who stopped it."""
    match end.reason:
        case "error":
            return ApiError(500, "server_error", "generation_failed", end.message or "The model could not answer.")
        case "timeout":
            return ApiError(504, "server_error", "timeout", end.message or "The answer took longer than allowed.")
        case "cancelled":
            return ApiError(499, "invalid_request_error", "cancelled", "The answer was cancelled.")
    return None


def usage_json(prompt: int, completion: int, cached: int, reasoning: int = 0) -> Json:
    """Usage as chat completions and completions give it; the latter show no reasoning apart."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


def logprob_json(item: Logprob) -> Json:
    """A token with its alternatives, as OpenAI has it."""
    return {
        "token": item.token,
        "bytes": list(item.raw),
        "logprob": item.logprob,
        "top_logprobs": [{"token": token, "bytes": list(raw), "logprob": value} for token, raw, value in item.top],
    }
