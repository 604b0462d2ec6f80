"""Answers to three prompts, by which two ways to run a model are compared.

Floating-point sums in another order give other last digits: two right ways agree in the likeliest token but for near
ties, and nearly in its probability. What computes wrongly disagrees from the first token on.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from deployments.model.engine.engine import Engine
from deployments.model.engine.request import Finish, GenerationRequest

# Changes whenever the prompts or what is kept of the answers do.
VERSION = 1
# Of unequal length: a few rows, some dozens, and one that needs several tiles of a matrix product.
PROMPTS = (
    "1, 2, 3, 4, 5, 6, 7,",
    "The capital of France is Paris. The capital of Italy is",
    "Water boils at one hundred degrees and freezes at zero. In winter the lake behind the house is covered with ice, "
    "and the children of the village skate on it from morning until the sun goes down. In summer they swim there, and "
    "in autumn the",
)
ANSWER_TOKENS = 8
TOP = 16
# Means over an answer's tokens. Right ways were measured to differ by at most 0.1 (docs/engine.md), wrong ones by more
# than 3 from the first token on.
MOST_ERROR_NATS = 0.75
# Where the two likeliest tokens are nearer than this, either may be chosen.
NEAR_TIE_NATS = 0.75


@dataclass(frozen=True)
class Step:
    """One token of an answer: which was chosen, and the likeliest with the logarithms of their probabilities."""

    token: int
    top: tuple[tuple[int, float], ...]


Answer = tuple[Step, ...]


async def answer_prompts(engine: Engine, prompts: int = len(PROMPTS), tokens: int = ANSWER_TOKENS) -> list[Answer]:
    """The engine's answers to the first `prompts`, computed side by side. Raises EngineError."""
    return list(await asyncio.gather(*(_answer(engine, text, tokens) for text in PROMPTS[:prompts])))


async def _answer(engine: Engine, text: str, tokens: int) -> Answer:
    bos = [engine.vocabulary.bos] if engine.vocabulary.adds_bos else []
    prompt = [*bos, *engine.tokenize(text)][: max(1, engine.max_sequence_tokens - tokens - 1)]
    request = GenerationRequest(
        prompt_token_ids=tuple(prompt),
        max_tokens=tokens,
        temperature=0.0,
        repeat_penalty=1.0,
        top_logprobs=TOP,
        ignore_eos=True,
    )
    steps: list[Step] = []
    async for item in engine.generate(request):
        if isinstance(item, Finish):
            if item.reason == "error":
                return ()
            break
        steps += (Step(found.token_id, found.top) for found in item.logprobs)
    return tuple(steps)


def fault_of(found: list[Answer], reference: list[Answer]) -> str | None:
    """Why these answers are not those of the reference, or None where they are, within the tolerance. Of longer or
    more answers the beginning is compared."""
    for number, (answer, expected) in enumerate(zip(found, reference, strict=False), start=1):
        if expected and not answer:
            return f"answer {number} ended with an error"
        errors: list[float] = []
        for step, wanted in zip(answer, expected, strict=False):
            error = _error(step, wanted)
            if not math.isfinite(error):
                return f"answer {number} has probabilities that are no numbers"
            errors.append(error)
            if step.token != wanted.token:
                if _margin(wanted) > NEAR_TIE_NATS:
                    return f"answer {number} has other tokens than the reference"
                break
        if errors and sum(errors) / len(errors) > MOST_ERROR_NATS:
            return f"answer {number} has other probabilities than the reference"
    return None


def largest_error(found: list[Answer], reference: list[Answer]) -> float:
    """The largest of the answers' mean errors (nats), up to where their tokens part."""
    worst = 0.0
    for answer, expected in zip(found, reference, strict=False):
        errors: list[float] = []
        for step, wanted in zip(answer, expected, strict=False):
            errors.append(_error(step, wanted))
            if step.token != wanted.token:
                break
        worst = max(worst, sum(errors) / len(errors) if errors else 0.0)
    return worst


def _error(step: Step, wanted: Step) -> float:
    """Mean difference of the log-probabilities, each token weighted by its probability in the reference. One that is
    not among the likeliest counts as if it were the least of them."""
    given = dict(step.top)
    least = min(given.values(), default=math.nan)
    weights = [math.exp(logprob) for _, logprob in wanted.top]
    differences = [abs(given.get(token, least) - logprob) for token, logprob in wanted.top]
    return sum(weight * difference for weight, difference in zip(weights, differences, strict=True)) / sum(weights)


def _margin(step: Step) -> float:
    (_, first), (_, second) = sorted(step.top, key=lambda item: -item[1])[:2]
    return first - second


def to_json(answers: list[Answer]) -> list[Any]:
    """As JSON has it: for each answer its steps, for each step the token and the likeliest ones."""
    return [[[step.token, [[t, round(p, 4)] for t, p in step.top]] for step in answer] for answer in answers]


def from_json(value: list[Any]) -> list[Answer]:
    """What `to_json` made. Raises TypeError, ValueError."""
    return [
        tuple(Step(int(token), tuple((int(t), float(p)) for t, p in top)) for token, top in answer) for answer in value
    ]
