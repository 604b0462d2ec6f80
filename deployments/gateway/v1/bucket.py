"""A limit for a minute, kept by several processes together."""

from __future__ import annotations

SECONDS = 60.0


class Bucket:
    """A leaky bucket: use fills it, and it empties evenly, a full one in a minute. So in any span of time no more is
    taken than a bucket holds and what leaks in that time.

    Each process has one of its own, tells the others through the database what it added (`take_unreported`), and
    learns from there how full it is with what all of them added (`learn`). Times are seconds of one clock that never
    goes back.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = 0.0
        self._at = now
        self._unreported = 0.0

    @property
    def per_second(self) -> float:
        """How fast it empties."""
        return self.per_minute / SECONDS

    def level(self, now: float) -> float:
        """How full it is; more than `per_minute` when more was charged than there was room for."""
        return max(0.0, self._level - self.per_second * (now - self._at))

    def remaining(self, now: float) -> int:
        """What can be taken at once."""
        return max(0, int(self.per_minute - self.level(now)))

    def wait_seconds(self, amount: float, now: float) -> float:
        """Until there is room for so much; 0: now."""
        lacking = self.level(now) + amount - self.per_minute
        # What rounding left over is no reason to refuse.
        return lacking / self.per_second if lacking > 1e-9 else 0.0

    def empty_seconds(self, now: float) -> float:
        """Until it is empty, if nothing is added."""
        return self.level(now) / self.per_second

    def add(self, amount: float, now: float) -> None:
        """Fills it, whether there is room or not."""
        self._level = self.level(now) + amount
        self._at = now
        self._unreported += amount

    def take_unreported(self) -> float:
        """What was added here and has not been told to others. To be given back to `put_back` if telling fails."""
        amount, self._unreported = self._unreported, 0.0
        return amount

    def put_back(self, amount: float) -> None:
        """It was not told."""
        self._unreported += amount

    def learn(self, level: float, now: float) -> None:
        """How full it is with what all processes have told; what they have not comes on top."""
        self._level = level + self._unreported
        self._at = now
