"""How many places of a grammar an answer can be at, all at once: what each token of it costs.

llama.cpp follows all ways to read what was written so far. Where repetitions are kept apart, as the items of an array
are by commas, there are few. In `("a"{0,30}){0,30}` nothing tells which of the 900 a's was written last: each is
followed, and compared with each other one.
"""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

# Of these a token costs up to half a second on one core, and four times that with twice as many.
MOST_PLACES = 256

_TOKEN = re.compile(
    r"(?P<space>(?:\s|\#[^\r\n]*)+)|(?P<rule>[A-Za-z0-9-]+(?=\s*::=))|(?P<is>::=)|(?P<name>[A-Za-z0-9-]+)"
    r'|(?P<text>"(?:\\.|[^"\\])*")|(?P<set>\[(?:\\.|[^\]\\])*\])|(?P<times>[*+?]|\{[\s\d,]*\})|(?P<sign>[.()|])',
    re.DOTALL,
)
_CHAR = re.compile(r"\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}|\\.|[^\\]", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_TIMES = {"*": (0, None), "+": (1, None), "?": (0, 1)}

# Sets of characters are bits; all beyond Latin-1 share the last one.
_OTHERS = 256
_ANY = (1 << _OTHERS + 1) - 1
# Beyond this the exact number says nothing more.
_VERY_MANY = 10**12
# So many alternatives are compared with each other.
_MOST_COMPARED = 40
_MOST_ROUNDS = 20


@dataclass(frozen=True)
class _Text:
    """Characters one after the other, each of a set."""

    sets: tuple[int, ...]


@dataclass(frozen=True)
class _Reference:
    name: str


@dataclass(frozen=True)
class _Row:
    parts: tuple[_Node, ...]


@dataclass(frozen=True)
class _Choice:
    parts: tuple[_Node, ...]
    beyond: int  # how a text among them goes on where another one ends


@dataclass(frozen=True)
class _Repeated:
    part: _Node
    least: int
    most: int | None


_Node: TypeAlias = _Text | _Reference | _Row | _Choice | _Repeated


@dataclass(frozen=True)
class _Facts:
    """Of a part of a grammar: whether it can be empty, how it begins, how it can go on where it could also have
    ended, how many places it has, and at how many of them an answer can be at once."""

    is_empty: bool
    first: int
    beyond: int
    places: int
    at_once: int


_UNKNOWN = _Facts(is_empty=False, first=0, beyond=0, places=1, at_once=1)


@functools.lru_cache(maxsize=64)
def places_at_once(text: str) -> int:
    """At most so many, as far as repetitions are the reason: recursion and alternatives that begin alike are taken as
    kept apart. 1 for a text that is no grammar. A large grammar takes some tenths of a second the first time."""
    try:
        rules = _Parser(text).rules()
    except (ValueError, LookupError):
        return 1
    order = _inner_first(rules)
    facts: dict[str, _Facts] = {}
    for _ in range(_MOST_ROUNDS):
        # What recursive rules begin with is known after some rounds. The places of a rule within itself do not count.
        before, done = dict(facts), set[str]()
        for name in order:
            facts[name] = _facts(rules[name], facts, done)
            done.add(name)
        if facts == before:
            break
    return facts["root"].at_once if "root" in facts else 1


def _inner_first(rules: Mapping[str, _Node]) -> list[str]:
    """The rules that `root` needs, each after those that it needs itself, where these are not recursive."""
    order: list[str] = []
    seen: set[str] = set()
    waiting = [("root", False)]
    while waiting:
        name, is_done = waiting.pop()
        if is_done:
            order.append(name)
        elif name in rules and name not in seen:
            seen.add(name)
            waiting += [(name, True), *((other, False) for other in _named(rules[name]))]
    return order


def _named(node: _Node) -> list[str]:
    match node:
        case _Reference(name):
            return [name]
        case _Row(parts) | _Choice(parts, _):
            return [name for part in parts for name in _named(part)]
        case _Repeated(part):
            return _named(part)
    return []


def _facts(node: _Node, facts: Mapping[str, _Facts], done: Container[str]) -> _Facts:
    match node:
        case _Text(sets):
            return _Facts(is_empty=not sets, first=sets[0] if sets else 0, beyond=0, places=1, at_once=1)
        case _Reference(name):
            known = facts.get(name, _UNKNOWN)
            return known if name in done else replace(known, places=1, at_once=1)
        case _Row(parts):
            return functools.reduce(_followed, (_facts(part, facts, done) for part in parts))
        case _Choice(parts, beyond):
            return _chosen([_facts(part, facts, done) for part in parts], beyond)
    return _repeated(_facts(node.part, facts, done), node.least, node.most)


def _followed(left: _Facts, right: _Facts) -> _Facts:
    is_apart = not left.beyond & right.first
    return _Facts(
        is_empty=left.is_empty and right.is_empty,
        first=left.first | (right.first if left.is_empty else 0),
        beyond=right.beyond | (0 if is_apart and not right.is_empty else left.beyond),
        places=min(left.places + right.places, _VERY_MANY),
        at_once=max(left.at_once, right.at_once if is_apart else right.places),
    )


def _chosen(parts: Sequence[_Facts], beyond: int) -> _Facts:
    first = functools.reduce(operator.or_, (part.first for part in parts))
    beyond = functools.reduce(operator.or_, (part.beyond for part in parts), beyond)
    is_empty = any(part.is_empty for part in parts)
    return _Facts(
        is_empty=is_empty,
        first=first,
        beyond=beyond | (first if is_empty else 0),
        places=max(part.places for part in parts),
        at_once=max(part.at_once for part in parts),
    )


def _repeated(part: _Facts, least: int, most: int | None) -> _Facts:
    is_empty = least == 0 or part.is_empty
    is_open = is_empty or most is None or most > least
    # Without an upper limit all repetitions after the least ones are one place to llama.cpp.
    places = min(part.places * (least + 1 if most is None else max(most, 1)), _VERY_MANY)
    is_apart = most == 1 or not part.beyond & part.first
    return _Facts(
        is_empty=is_empty,
        first=part.first,
        beyond=part.beyond | (part.first if is_open else 0),
        places=places,
        at_once=part.at_once if is_apart else places,
    )


class _Parser:
    """Of GBNF. Raises ValueError or LookupError for what is none."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if not found or not found.lastgroup:
                raise ValueError(f"unknown sign at {place}")
            place = found.end()
            if found.lastgroup != "space":
                self._tokens.append((found.lastgroup, found.group()))
        self._tokens.append(("end", ""))
        self._place = 0

    def rules(self) -> dict[str, _Node]:
        """By their names."""
        rules: dict[str, _Node] = {}
        while self._kind != "end":
            name = self._take("rule")
            self._take("is")
            rules[name] = self._choice()
        return rules

    @property
    def _kind(self) -> str:
        return self._tokens[self._place][0]

    def _take(self, kind: str) -> str:
        found, text = self._tokens[self._place]
        if found != kind:
            raise ValueError(f"{found} instead of {kind}")
        self._place += 1
        return text

    def _takes(self, sign: str) -> bool:
        is_there = self._tokens[self._place] == ("sign", sign)
        self._place += is_there
        return is_there

    def _choice(self) -> _Node:
        parts = [self._row()]
        while self._takes("|"):
            parts.append(self._row())
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts), _beyond(parts))

    def _row(self) -> _Node:
        parts: list[_Node] = []
        while part := self._part():
            while self._kind == "times":
                part = _Repeated(part, *_times(self._take("times")))
            parts.append(part)
        if all(isinstance(part, _Text) for part in parts):
            return _Text(tuple(chars for part in parts if isinstance(part, _Text) for chars in part.sets))
        return parts[0] if len(parts) == 1 else _Row(tuple(parts))

    def _part(self) -> _Node | None:
        match self._kind:
            case "name":
                return _Reference(self._take("name"))
            case "text":
                return _Text(tuple(_bits(code, code) for code in _codes(self._take("text")[1:-1])))
            case "set":
                return _Text((_set(self._take("set")[1:-1]),))
        if self._takes("."):
            return _Text((_ANY,))
        if self._takes("("):
            inner = self._choice()
            if not self._takes(")"):
                raise ValueError("an open parenthesis")
            return inner
        return None


def _beyond(parts: Sequence[_Node]) -> int:
    beyond = 0
    texts = [part.sets for part in parts if isinstance(part, _Text) and part.sets][:_MOST_COMPARED]
    for short, long in itertools.permutations(texts, 2):
        if len(short) < len(long) and all(map(operator.and_, short, long)):
            beyond |= long[len(short)]
    return beyond


def _times(text: str) -> tuple[int, int | None]:
    if text in _TIMES:
        return _TIMES[text]
    least, comma, most = text[1:-1].partition(",")
    return int(least), int(most) if most.strip() else None if comma else int(least)


def _codes(text: str) -> list[int]:
    return [_code(char) for char in _CHAR.findall(text)]


def _code(char: str) -> int:
    if len(char) > 2:
        return int(char[2:], 16)
    return ord(_ESCAPES.get(char[-1], char[-1]) if len(char) == 2 else char)


def _set(text: str) -> int:
    chars = _CHAR.findall(text.removeprefix("^"))
    bits = place = 0
    while place < len(chars):
        is_range = chars[place + 1 : place + 2] == ["-"] and place + 2 < len(chars)
        bits |= _bits(_code(chars[place]), _code(chars[place + 2 * is_range]))
        place += 3 if is_range else 1
    return _ANY & ~bits | 1 << _OTHERS if text.startswith("^") else bits


def _bits(least: int, most: int) -> int:
    beyond = 1 << _OTHERS if most >= _OTHERS else 0
    least, most = min(least, _OTHERS), min(most, _OTHERS - 1)
    return beyond | ((1 << most + 1) - (1 << least) if most >= least else 0)
