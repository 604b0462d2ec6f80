"""Guessing the next tokens from what the sequence has said before, so that one step can confirm several.

Prompt lookup decoding: the longest of two n-grams that ended the same way before says what follows. No second model;
a wrong guess costs only the rows it took in the batch, which is why guesses are made where rows cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

LONG, SHORT = 3, 2
# Drafting pays where cores idle: with a row or two in the batch.
MOST_DRAFTING_SEQUENCES = 2
# Weight of the newest guess in the running share of guesses that came true.
MEMORY = 0.15
# Share given back at each token without a guess, so that a sequence that guessed badly is tried again.
RECOVERY = 0.01


class Drafter:
    """Drafts for one sequence. `tokens` is the sequence's own growing list; it is indexed when drafts are wanted."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._indexed = SHORT
        self._places: dict[tuple[int, ...], int] = {}
        self.hit_rate = 0.5

    def draft(self, most: int) -> list[int]:
        """At most `most` tokens that may come next; none where nothing like it was said before."""
        tokens = self._tokens
        # The n-grams that end at the last token are looked up, not yet indexed.
        for end in range(self._indexed, len(tokens)):
            self._places[tuple(tokens[end - SHORT : end])] = end
            if end >= LONG:
                self._places[tuple(tokens[end - LONG : end])] = end
        self._indexed = max(self._indexed, len(tokens))
        for length in (LONG, SHORT):
            place = self._places.get(tuple(tokens[-length:])) if len(tokens) > length else None
            if place is not None:
                return list(tokens[place : place + most])
        self.hit_rate = min(0.5, self.hit_rate + RECOVERY)
        return []

    def learn(self, drafted: int, accepted: int) -> None:
        """Takes note of how many of the drafted tokens came true."""
        self.hit_rate += MEMORY * (accepted / drafted - self.hit_rate)
