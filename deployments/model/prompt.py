"""From a thread's history to a prompt that fits the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    while True:
        tokens = render([*system, *kept])
        if len(tokens) <= limit_tokens or len(kept) <= 1:
            return tokens
        del kept[0]
        # Templates expect a user's message first.
        while len(kept) > 1 and kept[0]["role"] == "assistant":
            del kept[0]


def attributed(history: Sequence[Mapping[str, str | None]]) -> list[Message]:
    """The history as the model reads it: what a person said begins with the name, where a name is given."""
    return [
        {
            "role": said["role"] or "",
            "content": f"{said['name']}: {said['content']}" if said["name"] else said["content"] or "",
        }
        for said in history
    ]


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
