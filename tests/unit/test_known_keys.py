"""How long a Gateway may trust what it remembers of API keys."""

from __future__ import annotations

import math
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deployments.gateway.v1.callers import READ, Caller
from deployments.gateway.v1.known_keys import MOST_KEYS, TRUST_SECONDS, KnownKey, KnownKeys


def holder(credential: bytes) -> Caller:
    return Caller(uuid4(), credential, uuid4(), frozenset({READ}))


def test_a_key_is_remembered_while_the_version_is_confirmed() -> None:
    keys = KnownKeys()
    keys.put(b"a", KnownKey(holder(b"a"), math.inf), 1, 0.0)
    assert keys.get(b"a", TRUST_SECONDS / 2) is not None
    assert keys.get(b"a", TRUST_SECONDS) is None
    keys.confirm(1, 10.0)
    assert keys.get(b"a", 10.0) is not None


def test_a_change_makes_all_be_asked_for_again() -> None:
    keys = KnownKeys()
    keys.put(b"a", KnownKey(holder(b"a"), math.inf), 1, 0.0)
    keys.confirm(2, 0.5)
    assert keys.get(b"a", 0.5) is None


def test_an_answer_that_was_overtaken_by_a_change_is_not_remembered() -> None:
    keys = KnownKeys()
    keys.confirm(2, 0.5)
    keys.put(b"a", KnownKey(holder(b"a"), math.inf), 1, 0.4)
    assert keys.get(b"a", 0.6) is None


def test_an_expired_key_is_asked_for() -> None:
    keys = KnownKeys()
    keys.put(b"a", KnownKey(holder(b"a"), 1.0), 1, 0.0)
    assert keys.get(b"a", 0.9) is not None
    assert keys.get(b"a", 1.0) is None


def test_memory_is_bounded() -> None:
    keys = KnownKeys()
    for number in range(MOST_KEYS + 10):
        keys.put(b"%d" % number, KnownKey(holder(b"a"), math.inf), 1, 0.0)
    remembered = sum(keys.get(b"%d" % number, 0.0) is not None for number in range(MOST_KEYS + 10))
    assert remembered == MOST_KEYS


class RevokedKeys(RuleBasedStateMachine):
    """A database whose keys are revoked at any time, and readings of it that take any time to arrive."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.version = 1
        self.revoked: dict[bytes, float] = {}
        self.keys = KnownKeys()
        # Readings on their way: key (or None for a poll), version, when asked, whether the key was live.
        self.readings: list[tuple[bytes | None, int, float, bool]] = []

    @rule(seconds=st.floats(0.01, 1.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from([b"a", b"b", b"c"]))
    def revoke(self, key: bytes) -> None:
        if key not in self.revoked:
            self.revoked[key] = self.now
            self.version += 1

    @rule(key=st.sampled_from([b"a", b"b", b"c", None]))
    def ask(self, key: bytes | None) -> None:
        self.readings.append((key, self.version, self.now, key not in self.revoked))

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if not self.readings:
            return
        key, version, asked_at, is_live = self.readings.pop(data.draw(st.integers(0, len(self.readings) - 1)))
        if key is None:
            self.keys.confirm(version, asked_at)
        elif is_live:
            self.keys.put(key, KnownKey(Caller(None, key, UUID(int=1), frozenset()), math.inf), version, asked_at)

    @invariant()
    def a_revoked_key_is_not_known_for_longer_than_trust_lasts(self) -> None:
        for key, revoked_at in self.revoked.items():
            if self.now >= revoked_at + TRUST_SECONDS:
                assert self.keys.get(key, self.now) is None


TestRevokedKeys = RevokedKeys.TestCase


@given(st.floats(0, 1e6))
def test_nothing_is_known_at_first(now: float) -> None:
    assert KnownKeys().get(b"a", now) is None
