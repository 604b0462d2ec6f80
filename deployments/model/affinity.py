"""Which replica most likely holds a prompt's prefix in its KV memory, and whether it may have the request."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.prefixes import Prefix

MOST_HOLDERS = 8
LIGHT_LOAD = 2
"""Requests that a replica may always have: for a single one beside it, say a thread's other branch, it pays to wait."""
LOAD_BLOCKS = 4
"""So many blocks are computed anew rather than to be one more at a replica: about 120 tokens, which take as long as
another answer in the batch delays one's own."""
HOME_BLOCKS = 8
"""So much nearer is the replica that a thread's hash names, where nobody has more of its prompt."""

Kind = Literal["affinity", "guarded", "new"]


class PrefixMap:
    """Which replicas were sent which blocks last. Never more than `limit` blocks, each with at most 8 replicas; those
    unused for longest go first, and of a prompt its end before its beginning."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holders)

    def note(self, blocks: Sequence[bytes], replica: str) -> None:
        """The replica has these blocks from now on."""
        for block in reversed(blocks):
            others = [holder for holder in self._holders.get(block, ()) if holder != replica]
            self._holders[block] = (*others[1 - MOST_HOLDERS :], replica)
            self._holders.move_to_end(block)
        while len(self._holders) > self._limit:
            self._holders.popitem(last=False)

    def depths(self, blocks: Sequence[bytes]) -> dict[str, int]:
        """How many leading blocks each replica has; those that have none are left out."""
        depths: dict[str, int] = {}
        for place, block in enumerate(blocks):
            holders = [holder for holder in self._holders.get(block, ()) if depths.get(holder, 0) == place]
            if not holders:
                break
            depths |= dict.fromkeys(holders, place + 1)
        return depths

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets all other replicas."""
        for block, holders in list(self._holders.items()):
            if left := tuple(holder for holder in holders if holder in replicas):
                self._holders[block] = left
            else:
                del self._holders[block]


@dataclass(frozen=True)
class Choice:
    """Replicas in the order in which to try them, and why the first is first: none has more of the prefix; another has
    more, but is loaded; nobody has any of it."""

    order: tuple[str, ...]
    kind: Kind


class Affinity:
    """Longest prefix first, weighed against load, within bounded loads.

    What counts for a replica is how many leading blocks it has, less `LOAD_BLOCKS` for each request in flight. Where
    the replica that the thread's hash names (rendezvous hashing, the same in every process) has as much as any, it
    counts for `HOME_BLOCKS` more: so processes that know nothing of each other agree on what is new to them.

    A replica may have a request if with it its load is at most `load_factor` times the mean (rounded up to whole
    requests, so that there is always one that may), or 2, and no more than its `capacity`.
    """

    def __init__(self, limit_blocks: int, load_factor: float) -> None:
        self.prefixes = PrefixMap(limit_blocks)
        self._load_factor = load_factor

    def choose(self, prefix: Prefix, loads: Mapping[str, int], capacity: int) -> Choice:
        """`loads` are the requests in flight of each replica that there is: at least one."""
        mean = (sum(loads.values()) + 1) / len(loads)
        bound = min(capacity, max(LIGHT_LOAD, math.ceil(self._load_factor * mean)))
        depths = self.prefixes.depths(prefix.blocks)
        longest = max(depths.get(replica, 0) for replica in loads)
        weights = {replica: _weight(prefix.thread, replica) for replica in loads}
        home = min(weights, key=weights.__getitem__)

        def rank(replica: str) -> tuple[bool, int, bytes]:
            depth = depths.get(replica, 0)
            nearness = HOME_BLOCKS if replica == home and depth == longest else 0
            return loads[replica] >= bound, LOAD_BLOCKS * loads[replica] - depth - nearness, weights[replica]

        order = sorted(loads, key=rank)
        kind: Kind = "guarded" if depths.get(order[0], 0) < longest else "affinity" if longest else "new"
        return Choice(tuple(order), kind)

    def note(self, prefix: Prefix, replica: str) -> None:
        """The replica took a request."""
        self.prefixes.note(prefix.blocks, replica)

    def keep(self, replicas: Collection[str]) -> None:
        """These replicas are all that there are."""
        self.prefixes.keep(replicas)


def _weight(thread: bytes, replica: str) -> bytes:
    return hashlib.blake2b(thread + replica.encode(), digest_size=8).digest()
