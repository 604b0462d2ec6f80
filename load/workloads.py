"""Prompts of an exact number of tokens, each different, some with a shared beginning."""

from __future__ import annotations

import random
from collections.abc import Callable

Tokens = tuple[int, ...]

_WHO = "The old sailor|A young engineer|My neighbour|The teacher|Every visitor|A tired cook|The clockmaker|Her brother"
_DID = "carried|painted|forgot|repaired|described|bought|counted|hid|measured|opened|remembered|wrote about"
_WHAT = (
    "a wooden boat|the blue lamp|three letters|an unusual map|the garden gate|a broken radio|two small keys|a recipe"
)
_WHERE = "by the river|before the storm|in the long winter|near the station|after lunch|without a word|on Tuesday"
_PARTS = [part.split("|") for part in (_WHO, _DID, _WHAT, _WHERE)]


class Prompts:
    """Text that no other call has given, as tokens. The same seed gives the same prompts."""

    def __init__(self, tokenize: Callable[[str], list[int]], seed: int) -> None:
        self._tokenize = tokenize
        self._random = random.Random(seed)

    def fresh(self, tokens: int) -> Tokens:
        """A prompt of exactly so many tokens; it begins with a number of its own."""
        return tuple(self._tokenize(self.text(tokens))[:tokens])

    def text(self, tokens: int) -> str:
        """The same as text, to the end of its last sentence: up to 15 tokens more."""
        text = f"{self._random.randrange(10**9)}."
        while len(self._tokenize(text)) < tokens:
            text += " " + " ".join(self._random.choice(part) for part in _PARTS) + "."
        return text

    def short(self, count: int) -> list[Tokens]:
        """Prompts of 60 tokens that have nothing in common."""
        return [self.fresh(60) for _ in range(count)]

    def shared(self, count: int) -> list[Tokens]:
        """Prompts of 600 tokens, of which the first 500 are the same."""
        prefix = self.fresh(500)
        return [prefix + self.fresh(100) for _ in range(count)]
