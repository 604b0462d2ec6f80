"""From a thread's history to a prompt that fits the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deployments.model.engine import Engine
from deployments.tool_syntax import without_thinking

Message = dict[str, str]


def fit(
    system_prompt: str,
    history: Sequence[Message],
    render: Callable[[Sequence[Message]], list[int]],
    limit_tokens: int,
) -> list[int]:
    """Token ids of the system prompt and as many of the latest messages, whole, as `limit_tokens` hold.

    The last message is never left out: a prompt longer than the limit is the caller's to refuse.
    Deterministic, so that a replica that takes a turn over makes the same prompt.
    """
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    kept = merged(history)
    # Where a prompt may begin: templates expect a user's message first.
    starts = [place for place, said in enumerate(kept) if place in (0, len(kept) - 1) or said["role"] != "assistant"]
    return longest(starts, lambda start: render([*system, *kept[start:]]), limit_tokens)


def longest(starts: Sequence[int], prompt: Callable[[int], list[int]], limit_tokens: int) -> list[int]:
    """The prompt from the first of `starts`, in rising order, from which it fits; from the last where none does."""
    # Back from the end by steps that double until it does not fit, then by halves: of a thread of thousands of
    # messages little more is rendered than fits.
    fitting, failing, step = len(starts) - 1, -1, 1
    tokens = prompt(starts[fitting])
    while len(tokens) <= limit_tokens and fitting - failing > 1:
        number = (fitting + failing) // 2 if failing >= 0 else max(0, fitting - step)
        longer = prompt(starts[number])
        if len(longer) <= limit_tokens:
            fitting, tokens, step = number, longer, 2 * step
        else:
            failing = number
    return tokens


def attributed(history: Sequence[Mapping[str, str | None]]) -> list[Message]:
    """The history as the model reads it: what a person said begins with the name, where a name is given. Of answers
    their thinking is left out, as models are trained; one that was stopped while thinking is left out whole."""
    read: list[Message] = []
    for said in history:
        role, content = said["role"] or "", said["content"] or ""
        if role == "assistant" and content:
            content = without_thinking(content)
            if not content:
                continue
        read.append({"role": role, "content": f"{said['name']}: {content}" if said["name"] else content})
    return read


def merged(history: Sequence[Message]) -> list[Message]:
    """Neighbours of one role as one message: many templates insist that user and assistant alternate, and a reply to
    a person, or to an answer that was stopped before its first word, breaks that."""
    result: list[Message] = []
    for message in history:
        if result and result[-1]["role"] == message["role"]:
            result[-1] = message | {"content": result[-1]["content"] + "\n\n" + message["content"]}
        else:
            result.append(dict(message))
    return result


def end_of(engine: Engine, prompt: Sequence[int]) -> str:
    """The text of its last tokens: how the template begins the answer."""
    return "".join(engine.vocabulary.text(token) for token in prompt[-8:])
