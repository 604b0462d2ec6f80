"""A completion from items: chunks of a stream, or the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deployments.gateway.v1.chat.encode import failure, usage_json
from deployments.gateway.v1.errors import error_body
from deployments.generation import Ended, Item, Json, Logprob, Piece


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    ended: Ended | None = None


class CompletionFold:
    """Takes items, whose indices count the answers of all prompts, and gives chunks. `echoes` are the prompts, where
    the answers are to begin with them, else empty."""

    def __init__(
        self,
        head: Json,
        echoes: Sequence[str],
        n: int,
        with_logprobs: bool,
        include_usage: bool,
        warnings: Sequence[str],
    ) -> None:
        self._head = head | ({"warnings": list(warnings)} if warnings else {})
        self._choices = [_Choice() for _ in range(len(echoes) * n)]
        self._echoes = [echo for echo in echoes for _ in range(n)]
        self._n = n
        self._with_logprobs = with_logprobs
        self._include_usage = include_usage

    def feed(self, batch: Sequence[Item]) -> list[Json]:
        """The chunks of a batch."""
        chunks: list[Json] = []
        for item in batch:
            if isinstance(item, Piece):
                choice = self._choices[item.index]
                text = item.text if choice.text else self._echoes[item.index] + item.text
                choice.text.append(text)
                chunks.append(self._chunk(item.index, text, item.logprobs, None))
                choice.logprobs += item.logprobs
            elif isinstance(item, Ended):
                chunks += self._end(item)
        return chunks

    def whole(self) -> Json:
        """The completion. Raises ApiError where one of the answers failed."""
        choices: list[Json] = []
        for index, choice in enumerate(self._choices):
            assert choice.ended is not None, "it is complete"
            if failed := failure(choice.ended):
                raise failed
            text = "".join(choice.text) or self._echoes[index]
            choices.append(self._choice(index, text, choice.logprobs, choice.ended.reason, 0))
        return self._head | {"choices": choices, "usage": self.usage}

    @property
    def usage(self) -> Json:
        """A prompt counts once, however many answers it got."""
        ended = [choice.ended for choice in self._choices if choice.ended]
        firsts = [choice.ended for choice in self._choices[:: self._n] if choice.ended]
        prompt = sum(end.prompt_tokens for end in firsts)
        cached = sum(end.cached_tokens for end in firsts)
        return usage_json(prompt, sum(end.completion_tokens for end in ended), cached)

    def _end(self, end: Ended) -> list[Json]:
        choice = self._choices[end.index]
        choice.ended = end
        if failed := failure(end):
            return [error_body(failed)]
        text = "" if choice.text else self._echoes[end.index]
        chunks = [self._chunk(end.index, text, (), end.reason)]
        if self._include_usage and all(choice.ended for choice in self._choices):
            chunks.append(self._head | {"choices": [], "usage": self.usage})
        return chunks

    def _chunk(self, index: int, text: str, logprobs: Sequence[Logprob], reason: str | None) -> Json:
        offset = sum(len(item.token) for item in self._choices[index].logprobs)
        made = self._head | {"choices": [self._choice(index, text, logprobs, reason, offset)]}
        return made | {"usage": None} if self._include_usage else made

    def _choice(self, index: int, text: str, logprobs: Sequence[Logprob], reason: str | None, offset: int) -> Json:
        shown = _logprobs(logprobs, offset) if self._with_logprobs and logprobs else None
        return {"index": index, "text": text, "logprobs": shown, "finish_reason": reason}


def _logprobs(items: Sequence[Logprob], offset: int) -> Json:
    """In the older shape: lists beside each other, offsets in characters of the answer."""
    offsets: list[int] = []
    for item in items:
        offsets.append(offset)
        offset += len(item.token)
    return {
        "tokens": [item.token for item in items],
        "token_logprobs": [item.logprob for item in items],
        "top_logprobs": [{token: value for token, _, value in item.top} for item in items],
        "text_offset": offsets,
    }
