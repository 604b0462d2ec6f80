"""Tokens and text, both ways."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import InvalidRequest

CONTROL = 1 << 3  # an attribute of tokens: begins, ends or separates turns, and is no text


class Vocabulary:
    """The model's token table. Safe for use by several threads: what it keeps never changes."""

    def __init__(self, model: ctypes.c_void_p) -> None:
        self.handle = llama.llama_model_get_vocab(model)
        self.size: int = llama.llama_vocab_n_tokens(self.handle)
        self.adds_bos: bool = llama.llama_vocab_get_add_bos(self.handle)
        self.bos: int = llama.llama_vocab_bos(self.handle)
        self.eos: int = llama.llama_vocab_eos(self.handle)
        self.end_ids = frozenset(i for i in range(self.size) if llama.llama_vocab_is_eog(self.handle, i))
        self._texts = {-1: ""}
        self.pieces = [self._piece(i, special=False) for i in range(self.size)]
        controls = [i for i in range(self.size) if llama.llama_vocab_get_attr(self.handle, i) & CONTROL]
        self._controls = {name: token for token in controls if (name := self.text(token))}
        self.control_names = frozenset(self._controls)

    def _piece(self, token: int, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(512)
        size = llama.llama_token_to_piece(self.handle, token, buffer, 512, 0, special)
        return buffer.raw[:size] if size > 0 else b""

    def text(self, token: int) -> str:
        """A token as templates write it, special ones by their name; empty when there is none (-1)."""
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = self._piece(token, special=True).decode("utf-8", "replace")
        return text

    def shown(self, names: Iterable[str]) -> dict[int, bytes]:
        """What those of these names that are control tokens' are as text; any other token's text is its piece."""
        return {self._controls[name]: name.encode() for name in names if name in self._controls}

    def tokenize(self, text: str, special: bool = False, is_whole: bool = False) -> list[int]:
        """Token ids of a text. With `special`, names of special tokens become those tokens: never for user text. One
        that `is_whole` gets the tokens that the model wants at its beginning and its end."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        count = llama.llama_tokenize(self.handle, data, len(data), tokens, room, is_whole, special)
        return list(tokens[:count])

    def check(self, tokens: Sequence[int], param: str) -> None:
        """Raises InvalidRequest when one of `tokens` is none of the vocabulary's: computing it ends the process."""
        if tokens and not (min(tokens) >= 0 and max(tokens) < self.size):
            raise InvalidRequest(param, f"token ids must be between 0 and {self.size - 1}")
