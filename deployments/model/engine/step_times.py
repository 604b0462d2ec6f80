"""How long steps take on this machine, learnt from those that were taken."""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest measurement.
MEMORY = 0.2
# Running streams may be slowed down by this much while a prompt is prefilled: 2 is what people are promised, the
# difference is for noise.
SLOWDOWN = 1.7
# Below this gap between two tokens nobody sees a difference; prefill may use it up.
SMOOTH_SECONDS = 0.03
# With fewer tokens a step costs about as much as with these.
LEAST_CHUNK_TOKENS = 16


@dataclass
class _Mean:
    value: float = 0.0
    known: bool = False

    def add(self, value: float, limit: float = 4.0) -> None:
        """One slow step on a busy machine counts as at most `limit` times the mean."""
        value = min(value, limit * self.value) if self.known else value
        self.value += (value - self.value) * (MEMORY if self.known else 1)
        self.known = True


class StepTimes:
    """Seconds of a decode step by its rows, and seconds that a prefilled token adds to a step."""

    def __init__(self, most_rows: int) -> None:
        self._decode = [_Mean() for _ in range(most_rows + 1)]
        self._prefill = _Mean(0.002)

    def decode_seconds(self, rows: int) -> float | None:
        """A step that decodes `rows` tokens: measured, or like the nearest number that was; None: none was."""
        known = [n for n, mean in enumerate(self._decode) if mean.known]
        if not known:
            return None
        return self._decode[min(known, key=lambda n: (abs(n - rows), n))].value

    def learn(self, decoded: int, prefilled: int, seconds: float) -> None:
        """Takes note of a step."""
        if not prefilled:
            self._decode[min(decoded, len(self._decode) - 1)].add(seconds)
        elif (decode := self.decode_seconds(decoded) if decoded else 0.0) is not None:
            self._prefill.add(max(seconds - decode, 1e-6) / prefilled)

    def prefill_budget(self, decoding: int, most: int) -> int:
        """Tokens to prefill in a step in which `decoding` sequences wait for their next token."""
        if not decoding:
            return most
        decode = self.decode_seconds(decoding) or SMOOTH_SECONDS
        spare = max(decode * SLOWDOWN, SMOOTH_SECONDS) - decode
        return max(LEAST_CHUNK_TOKENS, min(most, int(spare / self._prefill.value)))

    def rows_pay(self, rows: int, drafts: int, hit_rate: float) -> bool:
        """Whether `drafts` more rows, of which `hit_rate` come true, give more tokens a second than `rows` alone."""
        alone, together = self.decode_seconds(rows), self.decode_seconds(rows + drafts)
        if not alone or not together:
            return True
        return rows + drafts * hit_rate > rows * together / alone
