"""Answers that follow a grammar (GBNF) or a JSON schema: llama.cpp's grammar sampler, kept from ending the process."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import InvalidRequest
from deployments.model.engine.vocabulary import Vocabulary

# llama.cpp parses by recursion: a deeper one ends the process.
MOST_NESTING = 64
MOST_CHARACTERS = 100_000
# llama.cpp takes no more repetitions; the converter would write out each.
MOST_REPETITIONS = 2000
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """GBNF of the JSON texts that a schema allows. Raises InvalidRequest."""
    # Imported at first use: it loads llama.cpp.
    from deployments.model.engine.schema_rules import gbnf

    _refuse_excess(schema, MOST_NESTING)
    try:
        return gbnf(schema)
    except (AssertionError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise InvalidRequest("json_schema", f"this schema cannot be used: {reason}") from error


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
    """State of one answer that follows a grammar. For one thread at a time. Raises InvalidRequest."""

    def __init__(self, text: str, vocabulary: Vocabulary, produced: Sequence[int] = ()) -> None:
        _refuse_fatal(text)
        data = text.encode("utf-8", "replace")
        self._sampler = llama.llama_sampler_init_grammar(vocabulary.handle, data, b"root")
        if not self._sampler:
            raise InvalidRequest("grammar", "it is no GBNF grammar with a rule `root` and without left recursion")
        self._end_ids = vocabulary.end_ids
        self._one = np.zeros(1, _ENTRY)
        self._all = np.zeros(vocabulary.size, _ENTRY)
        self._all["id"] = np.arange(vocabulary.size)
        for token in produced:
            if not self.allows(token):
                self.close()
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
        """Frees its memory. Idempotent."""
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
