"""Reads answers: what is text, what is thinking, what is a call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Generator

from deployments.tool_syntax.markers import ARGS, CALL, CALL_END, CALL_ID, PYTHON_TAG, THINK, THINK_END, TOOL_CALLS
from deployments.tool_syntax.parts import CallArguments, CallStarted, Part, ReasoningPart, TextPart
from deployments.tool_syntax.reading import END, NAME, NoCall, Reader, Reading

_CALLS = (CALL, TOOL_CALLS, PYTHON_TAG)
# Members of a call without a marker besides name and arguments: with any other it is a JSON answer, and shown as such.
_KNOWN = frozenset({"type", "id"})


class AnswerParser:
    """Reads one answer as it comes.

    Guarantees: the parts are a function of the whole text, however it is cut. Nothing of a call is shown as text, and
    nothing that may still become one; other text is given at once, arguments as they come. Only functions in
    `tool_names` are called; what looks like another call, or is broken before its arguments begin, is text. Arguments
    that are broken or cut off later are given as far as they go. Nothing is lost but the markers, white space around
    calls and thinking, and what is in a call besides name and arguments.

    Known are `<tool_call>{"name", "arguments"}</tool_call>`, `[TOOL_CALLS][{"name", "arguments"}, …]`,
    `[TOOL_CALLS]name[ARGS]{…}` and `<|python_tag|>{"name", "parameters"}; …`; and, at the beginning of an answer,
    `<think>…</think>`, and calls without a marker.
    """

    def __init__(self, tool_names: Collection[str], seed: str, parallel: bool = True) -> None:
        """No `tool_names`: no calls are looked for. Ids of calls follow from `seed`. Not `parallel`: only the first
        call is given, others are left out."""
        self._names = frozenset(tool_names)
        self._sought = _CALLS if tool_names else ()
        self._seed = seed
        self._parallel = parallel
        self._calls = 0
        self._parts: list[Part] = []
        self._kind: type[TextPart | ReasoningPart | CallArguments] = TextPart
        self._pieces: list[str] = []  # of the part at hand
        self._only_text = False
        self._reader = Reader()
        self._reading = self._answer()
        next(self._reading)

    def feed(self, text: str) -> list[Part]:
        """The parts that more of the answer's text makes certain."""
        for place, char in enumerate(text):
            if self._only_text:
                self._add(TextPart, text[place:])
                break
            self._reading.send(char)
        return self._take()

    def finish(self) -> list[Part]:
        """The rest, when no more text comes."""
        self._reader.ended = True
        for _ in self._reading:
            pass
        return self._take()

    def _answer(self) -> Reading:
        yield from self._opening()
        self._only_text = not self._sought
        while not self._reader.ended:
            yield from self._text()
        self._show()

    def _opening(self) -> Reading:
        """Thinking and calls without a marker stand at the beginning only."""
        reader = self._reader
        first = yield from reader.after_space()
        while first == "<":
            marker = yield from reader.marker(first, (THINK, *self._sought))
            if marker != THINK:
                yield from self._calls_after(marker)
                return
            reader.held.clear()
            yield from self._thinking()
            first = yield from reader.after_space()
        if first == "[" and self._sought:
            marker = yield from reader.marker(first, self._sought)
            is_list = marker is None and reader.held[-1] == "["
            yield from self._calls_after("{" if is_list else marker, is_list)
        else:
            reader.unread(first)
            if first == "{" and self._sought:
                yield from self._calls_after("{")

    def _thinking(self) -> Reading:
        reader = self._reader
        yield from reader.drop_space()
        while True:
            char = yield from reader.after_space()
            if char == END or (char == "<" and (yield from reader.marker(char, (THINK_END,)))):
                yield from reader.drop_space()
                return
            self._add(ReasoningPart, "".join(reader.held))
            reader.held.clear()

    def _text(self) -> Reading:
        """Text up to and with the next calls, or the end."""
        reader = self._reader
        while True:
            char = yield from reader.after_space()
            if self._sought and char in ("<", "["):
                marker = yield from reader.marker(char, self._sought)
                if marker:
                    yield from self._calls_after(marker)
                    return
            self._show()
            if char == END:
                return

    def _calls_after(self, marker: str | None, is_list: bool = False) -> Reading:
        """The calls after a marker, "{" for none, or after that and "[". What is no call is shown."""
        try:
            while marker:
                marker = yield from self._listed_calls(marker, is_list)
                is_list = False
        except NoCall:
            pass
        self._show()

    def _listed_calls(self, marker: str, is_list: bool) -> Generator[None, str, str | None]:
        """Calls one after the other; returns the marker of more, if one follows at once."""
        reader = self._reader
        char = yield from reader.after_space()
        if marker == TOOL_CALLS and char in NAME:
            yield from self._named_call(char)
            char = yield from reader.after_space()
        else:
            if char == "[" and not is_list:
                is_list = True
                char = yield from reader.after_space()
            while True:
                if char != "{":
                    reader.unread(char)
                    raise NoCall
                yield from self._call(has_marker=marker != "{")
                char = yield from reader.after_space()
                if char in (",", ";"):
                    char = yield from reader.after_space()
                elif char != "{":
                    break
            if is_list and char == "]":
                char = yield from reader.after_space()
        if char not in ("<", "["):
            reader.unread(char)
            reader.held.clear()
            return None
        following = yield from reader.marker(char, (CALL_END, *_CALLS) if marker == CALL else _CALLS)
        if following == CALL_END:
            yield from reader.drop_space()
            return None
        return following

    def _named_call(self, first: str) -> Reading:
        """`name[ARGS]{…}`, perhaps with `[CALL_ID]…` between."""
        reader = self._reader
        name, char = yield from reader.name(first)
        while char == "[":
            marker = yield from reader.marker(char, (ARGS, CALL_ID))
            char = (yield from reader.name(""))[1] if marker == CALL_ID else (yield from reader.after_space())
            if marker is None:
                break
        if name not in self._names or char != "{":
            reader.unread(char)
            raise NoCall
        self._start(name)
        yield from self._arguments()

    def _call(self, has_marker: bool) -> Reading:
        """The members of a call's object; its "{" is read."""
        reader = self._reader
        name = arguments = ""
        started = False
        while (char := (yield from reader.after_space())) in ('"', ","):
            if char == ",":
                continue
            key = yield from reader.string()
            colon = yield from reader.after_space()
            if colon != ":":
                reader.unread(colon)
                raise NoCall
            first = yield from reader.after_space()
            is_arguments = key in ("arguments", "parameters") and not arguments and not started
            if is_arguments and name and first == "{":
                self._start(name)
                started = True
                yield from self._arguments()
                continue
            value = yield from reader.value(first)
            if is_arguments:
                arguments = _object(value)
            elif key == "name" and not name:
                name = _name(value)
                if name not in self._names:
                    raise NoCall
            elif not has_marker and key not in _KNOWN:
                raise NoCall
        if char != "}":
            reader.unread(char)
        if started:
            # Its last "}" may be missing: the call itself is told already.
            reader.held.clear()
        elif char == "}" and name and (arguments or has_marker):
            self._start(name)
            self._add_arguments(arguments or "{}")
        else:
            raise NoCall

    def _arguments(self) -> Reading:
        """An object whose "{" is read, given as it comes."""
        self._add_arguments("{")
        rest = self._reader.balanced()
        while char := (yield from rest.next()):
            self._reader.held.clear()
            self._add_arguments(char)

    def _start(self, name: str) -> None:
        """From here on it is a call."""
        self._reader.held.clear()
        self._close()
        index, self._calls = self._calls, self._calls + 1
        if index == 0 or self._parallel:
            digest = hashlib.sha256(f"{self._seed}:{index}".encode()).hexdigest()
            self._parts.append(CallStarted(index, f"call_{digest[:24]}", name))

    def _add_arguments(self, text: str) -> None:
        if self._calls == 1 or self._parallel:
            self._add(CallArguments, text)

    def _show(self) -> None:
        self._add(TextPart, "".join(self._reader.held))
        self._reader.held.clear()

    def _add(self, kind: type[TextPart | ReasoningPart | CallArguments], text: str) -> None:
        if text:
            if kind is not self._kind:
                self._close()
                self._kind = kind
            self._pieces.append(text)

    def _close(self) -> None:
        """Ends the part at hand."""
        text = "".join(self._pieces)
        self._pieces.clear()
        if not text:
            return
        if self._kind is CallArguments:
            self._parts.append(CallArguments(self._calls - 1, text))
        else:
            self._parts.append(ReasoningPart(text) if self._kind is ReasoningPart else TextPart(text))

    def _take(self) -> list[Part]:
        self._close()
        parts, self._parts = self._parts, []
        return parts


def without_thinking(answer: str) -> str:
    """What a whole answer says besides its thinking: nothing, where it was stopped in it."""
    if not answer.lstrip().startswith(THINK):
        return answer
    parser = AnswerParser((), "")
    parts = [*parser.feed(answer), *parser.finish()]
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _name(value: str) -> str:
    try:
        name = json.loads(value)
    except ValueError:
        name = None
    if not isinstance(name, str):
        raise NoCall
    return name


def _object(value: str) -> str:
    """The arguments of a call, where they are not simply an object after the name: some models write the object's
    text as a string, and null for none."""
    try:
        parsed = json.loads(value)
        if isinstance(parsed, str):
            value, parsed = parsed, json.loads(parsed)
    except ValueError:
        raise NoCall from None
    if parsed is None:
        return "{}"
    if not isinstance(parsed, dict):
        raise NoCall
    return value
