"""Answers that follow a grammar (GBNF) or a JSON schema: llama.cpp's grammar sampler, kept from ending the process, and
from holding up all answers.

Two bounds keep one client's grammar from the time of the others. One whose repetitions cannot be told apart, so that an
answer could be at more than MOST_PLACES places of them at once, is refused (grammar_places.py). What that does not
foresee is stopped: an answer whose grammar needs more than LIMIT_SECONDS for a token ends with an error.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import GrammarTooSlow, InvalidRequest
from deployments.model.engine.grammar_places import MOST_PLACES, places_at_once
from deployments.model.engine.vocabulary import Vocabulary
from deployments.model.engine.watch import TookTooLong, Watch

T = TypeVar("T")

# Of a core's time, for one token of one answer. Most take 0.02 ms, a full mask 3 ms.
LIMIT_SECONDS = 0.25
# More for each token of an answer that is resumed.
REPLAY_SECONDS = 0.001
# llama.cpp parses by recursion: a deeper one ends the process.
MOST_NESTING = 64
MOST_CHARACTERS = 100_000
# llama.cpp takes no more repetitions; the converter would write out each.
MOST_REPETITIONS = 2000
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_watches = threading.local()
_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """GBNF of the JSON texts that a schema allows. Raises InvalidRequest."""
    # Imported at first use: it loads llama.cpp.
    from deployments.model.engine.schema_rules import gbnf

    _refuse_excess(schema, MOST_NESTING)
    try:
        text = gbnf(schema)
    except (
        AssertionError,
        ArithmeticError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise InvalidRequest("json_schema", f"this schema cannot be used: {reason}") from error
    _refuse_places("json_schema", text)
    return text


def check_grammar(text: str) -> None:
    """Raises InvalidRequest for a grammar that would end the process, or hold it up. What it finds is remembered: a
    large grammar takes some tenths of a second the first time."""
    _refuse_fatal(text)
    _refuse_places("grammar", text)


def _refuse_places(param: str, text: str) -> None:
    if (places := places_at_once(text)) > MOST_PLACES:
        raise InvalidRequest(
            param,
            f"repetitions in it cannot be told apart: what was written could be at {places} places of it at once, "
            f"and may be at {MOST_PLACES} at most. "
            "Let what is repeated begin or end with a character of its own, such as a comma, or repeat less",
        )


def _refuse_excess(value: object, depth: int) -> None:
    if depth == 0:
        raise InvalidRequest("json_schema", f"it is nested more than {MOST_NESTING} levels deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _COUNTS and isinstance(item, int) and item > MOST_REPETITIONS:
                raise InvalidRequest("json_schema", f"{key} may be at most {MOST_REPETITIONS}")
            if key == "pattern" and isinstance(item, str):
                counts = re.findall(r"\d+", " ".join(re.findall(r"\{[\d,]*\}", item)))
                if any(int(count[:9]) > MOST_REPETITIONS for count in counts):
                    raise InvalidRequest("json_schema", f"a pattern may repeat at most {MOST_REPETITIONS} times")
            _refuse_excess(item, depth - 1)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _refuse_excess(item, depth - 1)


class Grammar:
    """State of one answer that follows a grammar. For one thread at a time. Raises InvalidRequest.

    `allows`, `mask` and `accept` take as long as they take: who may not be held up calls them `in_time`.
    """

    def __init__(self, text: str, vocabulary: Vocabulary, produced: Sequence[int] = ()) -> None:
        check_grammar(text)
        self._end_ids = vocabulary.end_ids
        self._one = np.zeros(1, _ENTRY)
        self._all = np.zeros(vocabulary.size, _ENTRY)
        self._all["id"] = np.arange(vocabulary.size)
        self._sampler: Any = None
        self._is_left = False
        try:
            self.in_time(lambda: self._begin(text, vocabulary))
            if produced:
                self.in_time(lambda: self._replay(produced), LIMIT_SECONDS + len(produced) * REPLAY_SECONDS)
        except GrammarTooSlow as error:
            raise InvalidRequest("grammar", str(error)) from error
        except InvalidRequest:
            self.close()
            raise

    def in_time(self, work: Callable[[], T], seconds: float = LIMIT_SECONDS) -> T:
        """The result of work with this grammar, or what it raises. Raises GrammarTooSlow where it needs more than
        `seconds` of a core: then the grammar, and whatever the work touches, may not be used any more."""
        if not hasattr(_watches, "own"):
            _watches.own = Watch()
        try:
            return _watches.own.run(work, seconds, after=self._free)
        except TookTooLong:
            self._is_left = True
            raise GrammarTooSlow from None

    def _begin(self, text: str, vocabulary: Vocabulary) -> None:
        data = text.encode("utf-8", "replace")
        self._sampler = llama.llama_sampler_init_grammar(vocabulary.handle, data, b"root")
        if not self._sampler:
            raise InvalidRequest("grammar", "it is no GBNF grammar with a rule `root` and without left recursion")

    def _replay(self, produced: Sequence[int]) -> None:
        for token in produced:
            if not self.allows(token):
                raise InvalidRequest("produced_token_ids", "they do not follow the grammar")
            self.accept(token)

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with this token, or end with it. 1 to 20 µs."""
        self._one["id"], self._one["logit"] = token, 0.0
        self._apply(self._one)
        return bool(self._one["logit"][0] > -np.inf)

    def mask(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """A copy of the logits, -inf where the grammar does not allow the token. About 3 ms for 49,000 tokens."""
        self._all["logit"] = logits
        self._apply(self._all)
        return self._all["logit"].copy()

    def accept(self, token: int) -> None:
        """Goes on after a token that `allows` has allowed: any other would end the process."""
        if token not in self._end_ids:
            llama.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Frees its memory, or leaves that to the work that took too long. Idempotent."""
        if not self._is_left:
            self._free()

    def _free(self) -> None:
        if self._sampler:
            llama.llama_sampler_free(self._sampler)
            self._sampler = None

    def _apply(self, entries: NDArray[Any]) -> None:
        array = llama.llama_token_data_array()
        array.data = ctypes.cast(entries.ctypes.data, llama.llama_token_data_p)
        array.size = entries.size
        array.selected = -1
        array.sorted = False
        llama.llama_sampler_apply(self._sampler, ctypes.byref(array))


def _refuse_fatal(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequest("grammar", f"it has more than {MOST_CHARACTERS} characters")
    if "\0" in text:
        raise InvalidRequest("grammar", "it contains the character U+0000")
    # What stands in texts, sets of characters and comments nests and repeats nothing.
    rules = re.sub(r'"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]|#[^\r\n]*', "", text)
    for least, most in re.findall(r"\{\s*0*(\d+)\s*,\s*0*(\d+)\s*\}", rules):
        # llama.cpp would write out as many as an unsigned number can be.
        if int(least[:9]) > int(most[:9]):
            raise InvalidRequest("grammar", f"{{{least},{most}}} repeats at least more often than at most")
    depth = 0
    for sign in rules:
        depth += (sign == "(") - (sign == ")")
        if depth > MOST_NESTING:
            raise InvalidRequest("grammar", f"it is nested more than {MOST_NESTING} levels deep")
