"""Reads a text that comes character by character, as if it were there."""

from __future__ import annotations

from collections.abc import Generator

END = ""  # read when the text has ended, however often
NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_SPACE = frozenset(" \t\r\n")

Reading = Generator[None, str]
Reads = Generator[None, str, str]


class NoCall(Exception):
    """What began like a call is none: it is text."""


class Reader:
    """Generators that wait for characters, which `send` brings them. `held` is what was read since it was emptied."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.ended = False
        self._back: str | None = None

    def char(self) -> Reads:
        """The next character, or END."""
        char, self._back = self._back, None
        if char is None:
            if self.ended:
                return END
            char = yield
            if self.ended:
                return END
        self.held.append(char)
        return char

    def unread(self, char: str) -> None:
        """The character just read will be read again."""
        if char != END:
            self._back = self.held.pop()

    def after_space(self) -> Reads:
        """The next character that is no white space."""
        char = yield from self.char()
        while char in _SPACE:
            char = yield from self.char()
        return char

    def drop_space(self) -> Reading:
        """Drops what is held, and white space that follows."""
        self.unread((yield from self.after_space()))
        self.held.clear()

    def name(self, first: str) -> Generator[None, str, tuple[str, str]]:
        """A name that begins with `first`, and the character after it."""
        name, char = first, (yield from self.char())
        while char in NAME:
            name, char = name + char, (yield from self.char())
        return name, char

    def marker(self, first: str, markers: tuple[str, ...]) -> Generator[None, str, str | None]:
        """Which of the markers begins with `first` here. None of them contains its first character again, so that
        after None reading goes on with the character that did not fit."""
        seen = first
        while seen not in markers:
            char = yield from self.char()
            if char == END or not any(marker.startswith(seen + char) for marker in markers):
                self.unread(char)
                return None
            seen += char
        return seen

    def value(self, first: str) -> Reads:
        """A JSON value as it is written. Raises NoCall where it ends too early."""
        begin = len(self.held) - 1
        if first == '"':
            yield from self.string()
        elif first in ("{", "["):
            rest = self.balanced()
            while (yield from rest.next()):
                pass
            if not rest.complete:
                raise NoCall
        else:
            self.unread((yield from self.name(first))[1])
        return "".join(self.held[begin:])

    def string(self) -> Reads:
        """A string as it is written, without its quotes; the first one is read. Raises NoCall."""
        begin, char = len(self.held), ""
        while char != '"':
            char = yield from self.char()
            if char == "\\":
                char = (yield from self.char()) and "\\"
            if char < " ":  # a control character, or the end
                self.unread(char)
                raise NoCall
        return "".join(self.held[begin:-1])

    def balanced(self) -> Balanced:
        """The rest of an object or list whose first bracket is read."""
        return Balanced(self)


class Balanced:
    """Finds the end of an object or list by its brackets, whatever else is in it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._depth = 1
        self._quoted = self._escaped = False

    @property
    def complete(self) -> bool:
        """Whether its last bracket has been read."""
        return self._depth == 0

    def next(self) -> Reads:
        """Its next character; END after the last one."""
        char = END if self.complete else (yield from self._reader.char())
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped, self._quoted = char == "\\", char != '"'
        elif char == '"':
            self._quoted = True
        elif char in ("{", "["):
            self._depth += 1
        elif char in ("}", "]"):
            self._depth -= 1
        return char
