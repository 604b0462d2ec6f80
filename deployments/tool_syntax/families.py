"""Which way of calling functions a model has learnt, by its chat template."""

from __future__ import annotations

from typing import Literal

import jinja2
from jinja2 import meta

from deployments.tool_syntax.markers import ARGS, CALL, PYTHON_TAG, TOOL_CALLS

Family = Literal["hermes", "mistral", "mistral-args", "llama3"]


def _knows_tools(template_source: str) -> bool:
    """Whether a chat template describes functions to the model by itself."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)
    try:
        return "tools" in meta.find_undeclared_variables(environment.parse(template_source))
    except jinja2.TemplateError:
        return False  # such a model is refused when it is loaded


def family_of(template_source: str | None) -> Family:
    """The family of a chat template (None: the model has none).

    One that knows no tools, or marks calls in a way unknown here, is "hermes": that is how it is told of them then.
    """
    if not template_source or not _knows_tools(template_source) or CALL in template_source:
        return "hermes"
    if TOOL_CALLS in template_source:
        return "mistral-args" if ARGS in template_source else "mistral"
    if PYTHON_TAG in template_source or "<|start_header_id|>" in template_source:
        return "llama3"
    return "hermes"
