"""Grammars (GBNF) by which a model is made to call functions, with arguments as the functions take them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from deployments.generation import Function, Tools
from deployments.tool_syntax.families import Family
from deployments.tool_syntax.markers import ARGS, CALL, CALL_END, PYTHON_TAG, THINK_END, TOOL_CALLS

# A model that may call several functions at once, and must call, would not always find an end.
MOST_CALLS = 16
_SHARED = "any-"
# What is no name of a rule, and then what is.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{[\d,]*\}|([A-Za-z0-9-]+)')


class BadTools(ValueError):
    """The tools cannot be used; its text says which and why."""


def tool_grammar(
    tools: Tools, family: Family, schema_grammar: Callable[[Mapping[str, Any]], str], thinking: bool = False
) -> str | None:
    """The grammar of answers that call as `tools.choice` demands: one function, or up to 16 calls where `parallel`.

    With the choice "auto" it is None, unless a function is `strict`: then any text is allowed, but after a marker
    comes a call, whose arguments follow the schema of a strict function. `schema_grammar` makes GBNF of a JSON schema;
    what it does not know of a schema is not guaranteed, and what it raises is raised. `thinking`: the prompt has
    opened the model's thinking, which may go on and then ends. Raises BadTools.
    """
    if tools.choice == "auto":
        if not any(function.strict for function in tools.functions):
            return None
        return "\n".join(_optional(tools, family, schema_grammar))
    chosen = [f for f in tools.functions if tools.choice in ("required", f.name)]
    if not chosen:
        raise BadTools(f"there is no function {tools.choice!r} among the tools")
    rules = _calls(chosen, family, schema_grammar, all_strict=True)
    several = tools.parallel and tools.choice == "required"
    rules.append("forced ::= " + _forced(family, several))
    if thinking:
        rules += [*_text_until(THINK_END, "thought", "space-before forced", may_end=False), "space-before ::= [ \\n]*"]
    rules.append("root ::= " + ("thought" if thinking else "forced"))
    return "\n".join(rules)


def _calls(
    functions: list[Function], family: Family, schema_grammar: Callable[[Mapping[str, Any]], str], all_strict: bool
) -> list[str]:
    """The rule `call` of one call of any of the functions, without the marker."""
    # Rules of any value are those of every schema, and written once.
    shared = {name: rule for name, rule in _rules(schema_grammar({"type": "object"})).items() if name != "root"}
    rules = [f"{_SHARED}{name} ::= {_renamed(rule, '', shared)}" for name, rule in shared.items()]
    for place, function in enumerate(functions):
        schema = function.parameters if all_strict or function.strict else {}
        if schema.get("type", "object") != "object":
            raise BadTools(f"the parameters of {function.name!r} must be a schema of type object")
        own = _rules(schema_grammar({"type": "object"} | schema))
        same = {name for name, rule in own.items() if shared.get(name) == rule}
        prefix = f"f{place}-"
        rules += [
            f"{prefix}{name} ::= {_renamed(rule, prefix, same)}" for name, rule in own.items() if name not in same
        ]
        name = json.dumps(function.name)
        if family == "mistral-args":
            rules.append(f"call{place} ::= {_literal(function.name + ARGS)} f{place}-root")
        else:
            key = "parameters" if family == "llama3" else "arguments"
            begin = _literal(f'{{"name": {name}, "{key}": ')
            rules.append(f'call{place} ::= {begin} f{place}-root "}}"')
    return [*rules, "call ::= " + " | ".join(f"call{place}" for place in range(len(functions)))]


def _forced(family: Family, several: bool) -> str:
    begin, end, between = {
        "hermes": (f"{CALL}\n", f"\n{CALL_END}", f"\n{CALL_END}\n{CALL}\n"),
        "mistral": (f"{TOOL_CALLS}[", "]", ", "),
        "mistral-args": (TOOL_CALLS, "", TOOL_CALLS),
        "llama3": ("", "", "; "),
    }[family]
    more = f"({_literal(between)} call){{0,{MOST_CALLS - 1}}}" if several else ""
    return " ".join(filter(None, (begin and _literal(begin), "call", more, end and _literal(end))))


def _optional(tools: Tools, family: Family, schema_grammar: Callable[[Mapping[str, Any]], str]) -> list[str]:
    rules = _calls(list(tools.functions), family, schema_grammar, all_strict=False)
    if family == "llama3":
        # Without a marker a call is what begins with a brace.
        more = f'("; " call){{0,{MOST_CALLS - 1}}}' if tools.parallel else ""
        rules += _text_until(PYTHON_TAG, "text", f"call {more}", may_end=True)
        begin = r'begin ::= "<" text1 | [^<{\[ \t\r\n] text | ""'
        return [*rules, begin, rf"root ::= [ \t\r\n]* (call {more} | begin)"]
    marker, begin, end = {
        "hermes": (CALL, "\n", f"\n{CALL_END}"),
        "mistral": (TOOL_CALLS, "[", "]"),
        "mistral-args": (TOOL_CALLS, "", ""),
    }[family]
    more = f'(", " call){{0,{MOST_CALLS - 1}}}' if family == "mistral" and tools.parallel else ""
    then = "text" if tools.parallel else ""
    following = " ".join(filter(None, (begin and _literal(begin), "call", more, end and _literal(end), then)))
    return [*rules, *_text_until(marker, "text", following, may_end=True), "root ::= text"]


def _text_until(marker: str, name: str, following: str, may_end: bool) -> list[str]:
    """Rules of any text, up to a marker and then `following`. The rule `name` and those after it say how much of the
    marker has just been written. No marker contains its first character again."""
    end = ' | ""' if may_end else ""
    first, rules = marker[0], []
    for place, char in enumerate(marker):
        last = place == len(marker) - 1
        then = following if last else f"{name}{place + 1}"
        rule = f'{name}{place or ""} ::= "{char}" {then} | [^{first if place else ""}{_in_set(char)}] {name}'
        rules.append(rule + (f' | "{first}" {name}1' if place else "") + end)
    return rules


def _in_set(char: str) -> str:
    return "\\" + char if char in "[]\\" else char


def _rules(grammar: str) -> dict[str, str]:
    return dict(rule.split(" ::= ", 1) for rule in grammar.splitlines())


def _renamed(rule: str, prefix: str, shared: Container[str]) -> str:
    def name(token: re.Match[str]) -> str:
        return (_SHARED if token[1] in shared else prefix) + token[1] if token[1] else token[0]

    return _TOKEN.sub(name, rule)


def _literal(text: str) -> str:
    """A text as GBNF has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
