"""What the users ask."""

from __future__ import annotations

from itertools import product

_PLACES = (
    "a lighthouse",
    "the far north",
    "a small harbour",
    "an old library",
    "the desert",
    "a mountain village",
)
_HEROES = (
    "a young sailor",
    "two sisters",
    "a retired teacher",
    "a lost dog",
    "a clockmaker",
    "a night train driver",
)
_TALES = [f"Write a long story about {hero} in {place}." for place, hero in product(_PLACES, _HEROES)]

QUESTIONS = (
    "What is the capital of France?",
    "Give me three names for a cat.",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea.",
    "What can I cook from rice and eggs?",
)


def lanes(concurrency: int, chats_each: int, round_number: int) -> list[list[str]]:
    """Questions for each of `concurrency` people, all different within a round; the answers are long."""
    first = round_number * concurrency * chats_each
    asked = [_TALES[(first + i) % len(_TALES)] for i in range(concurrency * chats_each)]
    return [asked[i::concurrency] for i in range(concurrency)]
