"""How long steps take on this machine, learnt from those that were taken."""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest measurement.
MEMORY = 0.2
# While prompts are prefilled, running streams may have gaps of so long: 14 tokens a second are more than twice what
# people read. Where decoding alone takes about as long, a little is added.
GAP_SECONDS, SLOWDOWN = 0.06, 1.25
# While more wait for their first token than for their next one, the former come first. A few rows decoded alone cost
# twice as much each as 16 do, so that all are done earlier when all have begun: waves of 8, 16 and 32 (SmolLM2-135M,
# BF16, 2 cores) made 1.55, 1.26 and 1.34 times as many tokens a second as with GAP_SECONDS, their first tokens came in
# half the time, and gaps at the 99th percentile were 0.04, 0.09 and 0.12 s instead of 0.08.
BURST_GAP_SECONDS = 1.0
# With fewer tokens a step costs about as much as with these.
LEAST_CHUNK_TOKENS = 32
# Of a prompt's token, before any was measured.
GUESSED_SECONDS = 0.002


@dataclass
class _Mean:
    value: float = 0.0
    known: bool = False

    def add(self, value: float, limit: float = 2.0) -> None:
        """One slow step on a busy machine counts as at most `limit` times the mean."""
        value = min(value, limit * self.value) if self.known else value
        self.value += (value - self.value) * (MEMORY if self.known else 1)
        self.known = True


class StepTimes:
    """Seconds of a decode step by its rows, and seconds that a prompt's token adds to a step."""

    def __init__(self, most_rows: int) -> None:
        self._decode = [_Mean() for _ in range(most_rows + 1)]
        self._alone, self._beside = _Mean(), _Mean()

    def decode_seconds(self, rows: int) -> float | None:
        """A step that decodes `rows` tokens: measured, or like the nearest number that was; None: none was."""
        known = [n for n, mean in enumerate(self._decode) if mean.known]
        if not known:
            return None
        return self._decode[min(known, key=lambda n: (abs(n - rows), n))].value

    def learn(self, decoded: int, prefilled: int, seconds: float) -> None:
        """Takes note of a step. Prompt tokens are cheaper in large steps without decoding: those count only as long as
        nothing better is known."""
        if not prefilled:
            self._decode[min(decoded, len(self._decode) - 1)].add(seconds)
        elif not decoded:
            self._alone.add(seconds / prefilled)
        elif (decode := self.decode_seconds(decoded)) is not None and seconds > decode:
            # Otherwise the time of another number of rows stands for this one's, and nothing is learnt.
            self._beside.add((seconds - decode) / prefilled)

    def prefill_budget(self, decoding: int, prompts: int, most: int) -> int:
        """Tokens of prompts, at most `most`, in a step in which `decoding` sequences wait for their next token and
        `prompts` for their first."""
        if not decoding:
            return most
        decode = self.decode_seconds(decoding) or GAP_SECONDS
        gap = BURST_GAP_SECONDS if prompts > decoding else GAP_SECONDS
        spare = max(decode * SLOWDOWN, gap) - decode
        each = next((known.value for known in (self._beside, self._alone) if known.known), GUESSED_SECONDS)
        return min(most, max(LEAST_CHUNK_TOKENS, int(spare / each)))

    def rows_pay(self, rows: int, drafts: int, hit_rate: float) -> bool:
        """Whether `drafts` more rows, of which `hit_rate` come true, give more tokens a second than `rows` alone."""
        alone, together = self.decode_seconds(rows), self.decode_seconds(rows + drafts)
        if not alone or not together:
            return True
        return rows + drafts * hit_rate > rows * together / alone
