"""API keys that a Gateway remembers, so that most requests need no database."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.gateway.v1.callers import Caller

# The promise is 2 seconds from a key's end to the last request that it is taken for. What was read is trusted for so
# long from when the reading began; the rest is for a request that is on its way.
TRUST_SECONDS = 1.5
MOST_KEYS = 10_000


@dataclass(frozen=True)
class KnownKey:
    """Whose key it is, and the instant of the Gateway's clock at which it expires."""

    caller: Caller
    ends_at: float


class KnownKeys:
    """Keys by their hash. Each was read from the database, and the database has said less than TRUST_SECONDS ago that
    no key has changed since.

    The database counts all changes that make a key worth less: an equal version means that no such change has been
    committed between two readings. Whatever reads the version, a look-up or a poll, renews the trust in all keys of
    that version. Times are seconds of one clock that never goes back.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, KnownKey] = {}
        self._version = 0
        self._trusted_until = float("-inf")

    def get(self, credential: bytes, now: float) -> Caller | None:
        """The key's holder; None: the database must be asked."""
        if now >= self._trusted_until:
            return None
        known = self._keys.get(credential)
        return known.caller if known is not None and now < known.ends_at else None

    def confirm(self, version: int, asked_at: float) -> bool:
        """The version of some instant after `asked_at`. False: it is older than what is known here."""
        if version < self._version:
            return False
        if version > self._version:
            self._version = version
            self._keys.clear()
        self._trusted_until = max(self._trusted_until, asked_at + TRUST_SECONDS)
        return True

    def put(self, credential: bytes, known: KnownKey, version: int, asked_at: float) -> None:
        """A key that was read together with the version, at some instant after `asked_at`."""
        if not self.confirm(version, asked_at):
            return
        if len(self._keys) >= MOST_KEYS:
            del self._keys[next(iter(self._keys))]
        self._keys[credential] = known
