"""The model's own chat template, rendered so that what users write can never become a special token."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deployments.model.engine.errors import ModelFileError, PromptRefused
from deployments.model.engine.vocabulary import Vocabulary

# ChatML: what a model without a template of its own gets; most instruction models have learnt it.
FALLBACK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatTemplate:
    """Renders messages to token ids.

    Contents are replaced by random marks while the template runs, so that the template's text is tokenised
    with special tokens and each content without.
    """

    def __init__(self, source: str | None, vocabulary: Vocabulary) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source or FALLBACK)
        except jinja2.TemplateError as error:
            raise ModelFileError(f"the model's chat template cannot be used: {error}") from error
        self._vocabulary = vocabulary
        self.source = source or FALLBACK
        # jinja2.meta takes the text: a template that was compiled does not tell.
        self.knows_tools = "tools" in jinja2.meta.find_undeclared_variables(environment.parse(self.source))

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt that asks for the assistant's next message. Messages are {"role", "content"} and
        what else the template knows ("tool_calls", "name"); tools are JSON schemas of functions. Raises PromptRefused.
        """
        nonce = secrets.token_hex(8)
        contents: list[str] = []
        marked: list[dict[str, Any]] = []
        for message in messages:
            rest = {key: value for key, value in message.items() if key != "content"}
            self._refuse_controls(rest)
            # Templates trim contents: the marks have no space at their ends, the contents are trimmed here.
            contents.append((message.get("content") or "").strip())
            mark = f"{nonce}-{len(contents) - 1}-"
            marked.append(rest | {"content": mark if contents[-1] or "tool_calls" not in rest else ""})
        self._refuse_controls(tools)
        vocabulary = self._vocabulary
        try:
            text = self._template.render(
                messages=marked,
                tools=list(tools) or None,
                add_generation_prompt=True,
                bos_token=vocabulary.text(vocabulary.bos),
                eos_token=vocabulary.text(vocabulary.eos),
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise PromptRefused(f"the model's chat template refuses these messages: {error}") from error
        tokens: list[int] = []
        for place, part in enumerate(re.split(rf"{nonce}-(\d+)-", text)):
            if place % 2:
                tokens += vocabulary.tokenize(contents[int(part)])
            elif part:
                tokens += vocabulary.tokenize(part, special=True)
        if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
            tokens.insert(0, vocabulary.bos)
        return tokens

    def _refuse_controls(self, value: object) -> None:
        """Everything but contents is part of the template's text, where a special token's name would become one."""
        if isinstance(value, str):
            for name in self._vocabulary.control_names:
                if name in value:
                    raise PromptRefused(f"only the content of a message may contain {name!r}")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._refuse_controls(key)
                self._refuse_controls(item)
        elif isinstance(value, Sequence):
            for item in value:
                self._refuse_controls(item)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
