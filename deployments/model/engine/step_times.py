"""How long steps take on this machine, learnt from those that were taken."""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest measurement.
MEMORY = 0.2
# While prompts are prefilled, running streams may have gaps of so long: 14 tokens a second are more than twice what
# people read. Where decoding alone takes about as long, a little is added.
GAP_SECONDS, SLOWDOWN = 0.06, 1.25
# Several prompts at once are a burst: with n times as many of them as readers, a gap may last n times BURST_SECONDS. A
# few rows decoded alone cost twice as much each as 16 do, and a few tokens of prompts beside them half as much again as
# many, so that all are done earlier when all have begun.
BURST_SECONDS, MOST_BURST_SECONDS = 0.5, 3.0
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
    """Seconds of a decode step by its rows, and seconds that a prompt's token adds to a step. Where nobody reads, a
    step may have `prompt_tokens` however long they take."""

    def __init__(self, most_rows: int, prompt_tokens: int) -> None:
        self._decode = [_Mean() for _ in range(most_rows + 1)]
        self._alone, self._beside = _Mean(), _Mean()
        self._prompt_tokens = prompt_tokens

    def decode_seconds(self, rows: int) -> float | None:
        """A step that decodes `rows` tokens: measured, or like the nearest number that was; None: none was."""
        known = [n for n, mean in enumerate(self._decode) if mean.known]
        if not known:
            return None
        return self._decode[min(known, key=lambda n: (abs(n - rows), n))].value

    def learn(self, decoded: int, prefilled: int, seconds: float) -> None:
        """Takes note of a step. `prefilled` are its rows for prompts, cheaper in large steps without decoding: those
        count only as long as nothing better is known."""
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
        gap, means = GAP_SECONDS, (self._beside, self._alone)
        burst = min(MOST_BURST_SECONDS, BURST_SECONDS * prompts / max(1, decoding))
        if not decoding or (prompts > 1 and burst > gap):
            gap, means = burst, (self._alone, self._beside)
        each = next((known.value for known in means if known.known), GUESSED_SECONDS)
        if not decoding:
            return min(most, max(self._prompt_tokens, int(gap / each)))
        decode = self.decode_seconds(decoding) or GAP_SECONDS
        spare = max(decode * SLOWDOWN, gap) - decode
        return min(most, max(LEAST_CHUNK_TOKENS, int(spare / each)))

    def rows_of_a_reading(self) -> float:
        """How many tokens of prompts take about as long as reading all weights, which is most of what a small step
        does; 0 where that is not known. Rather too few: each token's time has its part of a reading in it."""
        decode = min((mean.value for mean in self._decode if mean.known), default=0.0)
        each = min((mean.value for mean in (self._alone, self._beside) if mean.known), default=0.0)
        return decode / each if each else 0.0

    def rows_pay(self, rows: int, drafts: int, hit_rate: float) -> bool:
        """Whether `drafts` more rows, of which `hit_rate` come true, give more tokens a second than `rows` alone."""
        alone, together = self.decode_seconds(rows), self.decode_seconds(rows + drafts)
        if not alone or not together:
            return True
        return rows + drafts * hit_rate > rows * together / alone
