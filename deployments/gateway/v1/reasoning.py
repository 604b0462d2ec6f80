"""How many of an answer's tokens are reasoning."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.generation import Ended


@dataclass
class ReasoningShare:
    """An estimate: reasoning has the share of the tokens that it has of the text, in characters. The text is stored,
    the borders of its tokens are not, and all readers are to be told the same."""

    characters: int = 0
    reasoning_characters: int = 0

    def tokens(self, ended: Ended) -> int:
        """Of the tokens of this answer, once all of its text was counted."""
        if not self.reasoning_characters:
            return 0
        return round(ended.completion_tokens * self.reasoning_characters / self.characters)
