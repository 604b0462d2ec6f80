"""Which holder of KV memory has the longest prefix of these tokens: a radix tree over token ids."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

Tokens = tuple[int, ...]
H = TypeVar("H", bound=Hashable)


def common_length(a: Tokens, b: Tokens) -> int:
    """How many leading tokens two sequences share. Compares slices, which run in C, log2(length) times."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class _Node(Generic[H]):
    """The tokens from the parent to here, and who ends here. Invariant, but for the root: it has a holder or at
    least two children, so that a tree has fewer than twice as many nodes as holders."""

    __slots__ = ("children", "edge", "holders", "parent")

    def __init__(self, edge: Tokens, parent: _Node[H] | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[int, _Node[H]] = {}
        self.holders: set[H] = set()

    def below(self) -> Iterator[H]:
        """Holders that end here or further down, the nearest first within a branch."""
        yield from self.holders
        for child in self.children.values():
            yield from child.below()


class PrefixTree(Generic[H]):
    """Each holder holds one sequence of tokens. Knows nothing of memory; not thread-safe."""

    def __init__(self) -> None:
        self._root: _Node[H] = _Node((), None)
        self._node: dict[H, _Node[H]] = {}

    def __contains__(self, holder: H) -> bool:
        return holder in self._node

    def __len__(self) -> int:
        return len(self._node)

    def put(self, holder: H, tokens: Tokens) -> None:
        """From now on `holder` holds exactly `tokens`."""
        self.remove(holder)
        node, rest = self._root, tokens
        while rest:
            child = node.children.get(rest[0])
            if child is None:
                child = node.children[rest[0]] = _Node(rest, node)
                node, rest = child, ()
                break
            shared = common_length(child.edge, rest)
            node = child if shared == len(child.edge) else self._split(child, shared)
            rest = rest[shared:]
        node.holders.add(holder)
        self._node[holder] = node

    def remove(self, holder: H) -> None:
        """Forgets a holder, if it is there."""
        node = self._node.pop(holder, None)
        if node:
            node.holders.discard(holder)
            self._tidy(node)

    def longest(self, tokens: Tokens) -> tuple[int, Iterator[H]]:
        """Length of the longest prefix of `tokens` that anybody holds, and who holds it (none when it is 0)."""
        node, length = self._root, 0
        while length < len(tokens):
            child = node.children.get(tokens[length])
            if child is None:
                break
            shared = common_length(child.edge, tokens[length : length + len(child.edge)])
            node, length = child, length + shared
            if shared < len(child.edge):
                break
        return length, (node.below() if length else iter(()))

    def is_extended(self, holder: H) -> bool:
        """Whether somebody else holds all that this holder holds."""
        node = self._node[holder]
        return bool(node.children) or len(node.holders) > 1

    def tokens(self, holder: H) -> Tokens:
        """What a holder holds."""
        parts: list[Tokens] = []
        node: _Node[H] | None = self._node[holder]
        while node:
            parts.append(node.edge)
            node = node.parent
        return tuple(token for part in reversed(parts) for token in part)

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        stack: list[_Node[Any]] = [self._root]
        holders = 0
        while stack:
            node = stack.pop()
            holders += len(node.holders)
            assert node is self._root or node.holders or len(node.children) > 1, "a node without a reason"
            for first, child in node.children.items():
                assert child.parent is node, "a child of somebody else"
                assert child.edge[:1] == (first,), "a child under another token"
                stack.append(child)
        assert holders == len(self._node), "a holder is lost"

    @staticmethod
    def _split(child: _Node[H], at: int) -> _Node[H]:
        """Puts a node in the middle of the way to `child`."""
        parent = child.parent
        assert parent is not None
        middle: _Node[H] = _Node(child.edge[:at], parent)
        parent.children[child.edge[0]] = middle
        child.edge, child.parent = child.edge[at:], middle
        middle.children[child.edge[0]] = child
        return middle

    def _tidy(self, node: _Node[H]) -> None:
        """Restores the invariant at a node that lost a holder or a child."""
        parent = node.parent
        if parent is None or node.holders or len(node.children) > 1:
            return
        if node.children:
            (child,) = node.children.values()
            child.edge, child.parent = node.edge + child.edge, parent
            parent.children[child.edge[0]] = child
        else:
            del parent.children[node.edge[0]]
            self._tidy(parent)
