"""The model's own chat template, rendered so that what users write can never become a special token."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.meta
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deployments.model.engine.errors import ModelFileError, PromptRefused
from deployments.model.engine.recent import TOKEN_BYTES, Recent
from deployments.model.engine.vocabulary import Vocabulary

# ChatML: what a model without a template of its own gets; most instruction models have learnt it.
FALLBACK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Of what was tokenised last: up to some 400,000 tokens.
KNOWN_BYTES = 16 << 20


class ChatTemplate:
    """Renders messages to token ids.

    Contents, and whatever else has a special token's name in it, are replaced by random marks while the template
    runs, so that the template's text is tokenised with special tokens and each of these without. A thread is rendered
    anew for each of its answers, and only its last messages are new: what was tokenised last is not tokenised again.
    """

    def __init__(self, source: str | None, vocabulary: Vocabulary) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        environment.filters["tojson"] = _tojson
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source or FALLBACK)
        except jinja2.TemplateError as error:
            raise ModelFileError(f"the model's chat template cannot be used: {error}") from error
        self._vocabulary = vocabulary
        self._known: Recent[tuple[str, bool], tuple[int, ...]] = Recent(KNOWN_BYTES, _size)
        self.source = source or FALLBACK
        # jinja2.meta takes the text: a template that was compiled does not tell.
        self.knows_tools = "tools" in jinja2.meta.find_undeclared_variables(environment.parse(self.source))

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt that asks for the assistant's next message. Messages are {"role", "content"} and
        what else the template knows ("tool_calls", "name"); tools are JSON schemas of functions. Raises PromptRefused.
        """
        marks = _Marks(self._vocabulary.control_names)
        marked: list[dict[str, Any]] = []
        for message in messages:
            rest = {key: marks.free_of_controls(value) for key, value in message.items() if key != "content"}
            # Templates trim contents: the marks have no space at their ends, the contents are trimmed here.
            content = (message.get("content") or "").strip()
            marked.append(rest | {"content": marks.mark(content) if content or "tool_calls" not in rest else ""})
        vocabulary = self._vocabulary
        try:
            text = self._template.render(
                messages=marked,
                tools=marks.free_of_controls(tools) or None,
                add_generation_prompt=True,
                marks=marks,
                bos_token=vocabulary.text(vocabulary.bos),
                eos_token=vocabulary.text(vocabulary.eos),
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise PromptRefused(f"the model's chat template refuses these messages: {error}") from error
        tokens: list[int] = []
        for part, is_text in marks.split(text):
            tokens += self._tokenized(part, special=not is_text)
        if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
            tokens.insert(0, vocabulary.bos)
        return tokens

    def _tokenized(self, part: str, special: bool) -> tuple[int, ...]:
        tokens = self._known.get((part, special))
        if tokens is None:
            tokens = tuple(self._vocabulary.tokenize(part, special))
            self._known.put((part, special), tokens)
        return tokens


def _size(part: tuple[str, bool], tokens: tuple[int, ...]) -> int:
    return sys.getsizeof(part[0]) + TOKEN_BYTES * len(tokens)


class _Marks:
    """Random words that stand for texts of users while a template runs."""

    def __init__(self, control_names: Collection[str]) -> None:
        self._control_names = control_names
        self._nonce = secrets.token_hex(8)
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """A word that stands for the text."""
        self._texts.append(text)
        return f"{self._nonce}-{len(self._texts) - 1}-"

    def free_of_controls(self, value: Any) -> Any:
        """The same with marks for those texts in it that name a special token."""
        if isinstance(value, str):
            return self.mark(value) if any(name in value for name in self._control_names) else value
        if isinstance(value, Mapping):
            return {self.free_of_controls(key): self.free_of_controls(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.free_of_controls(item) for item in value]
        return value

    def within_json(self, text: str) -> str:
        """What is in the strings of a JSON text stays JSON."""
        return re.sub(rf"{self._nonce}-(\d+)-", rf"{self._nonce}-\1j-", text)

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """The parts of a template's text that are not empty, and whether each is what a mark stands for."""
        parts = re.split(rf"{self._nonce}-(\d+)(j?)-", text)
        for place in range(0, len(parts), 3):
            if parts[place]:
                yield parts[place], False
            if place + 1 < len(parts):
                said = self._texts[int(parts[place + 1])]
                yield (json.dumps(said, ensure_ascii=False)[1:-1] if parts[place + 2] else said), True


@jinja2.pass_context
def _tojson(context: Context, value: object, indent: int | None = None, **_others: object) -> str:
    """As the makers of templates have it: in the order given, and nothing escaped for HTML, as Jinja's own does."""
    return context["marks"].within_json(json.dumps(value, ensure_ascii=False, indent=indent))


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
