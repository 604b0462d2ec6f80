"""Tokens become text one by one, and nothing is shown that might have to be taken back."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence


class Detokenizer:
    """Holds back incomplete UTF-8 and whatever may be the start of a stop string.

    A function of the tokens alone: fed the same tokens, a second one has shown the same text. That is what
    lets another replica go on in the middle of an answer. `shown` is the text of tokens that have no piece.
    """

    def __init__(self, pieces: Sequence[bytes], stop: Sequence[str], shown: Mapping[int, bytes] | None = None) -> None:
        self._pieces = pieces
        self._shown = shown or {}
        self._stop = tuple(s for s in stop if s)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped_by: str | None = None

    def feed(self, token: int) -> str:
        """Text that this token makes safe to show. Sets `stopped_by` when a stop string is complete."""
        self._held += self._decoder.decode(self._shown.get(token) or self._pieces[token])
        return self._release(final=False)

    def flush(self) -> str:
        """What was held back, when no more tokens come."""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(final=True)

    def _release(self, final: bool) -> str:
        ends = [(place, s) for s in self._stop if (place := self._held.find(s)) >= 0]
        if ends:
            place, self.stopped_by = min(ends)
            text, self._held = self._held[:place], ""
            return text
        keep = 0 if final else self._partial_stop_length()
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _partial_stop_length(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        return max(
            (n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])),
            default=0,
        )
