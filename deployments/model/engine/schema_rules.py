"""llama-cpp-python's converter of JSON schemas to grammars (GBNF), mended where its grammars allow too much, or what
the schema does not mean. Imported at first use: it loads llama.cpp."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from llama_cpp.llama_grammar import DOT, PRIMITIVE_RULES, RESERVED_NAMES, BuiltinRule, SchemaConverter

from deployments.model.engine.integer_range import integers

# In a JSON text no control character stands for itself.
_CHAR = BuiltinRule(PRIMITIVE_RULES["char"].content.replace(r'[^"\\]', r'[^"\\\x7F\x00-\x1F]'))
# Nor does a quotation mark, as a dot of a pattern would have it.
_DOT = r'[^"\\\x7F\x00-\x1F]'
# They say nothing about what is allowed.
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$comment"})
_OTHER = frozenset({"$ref", "oneOf", "anyOf", "const", "enum", "pattern", "format"})

_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


def gbnf(schema: Mapping[str, Any]) -> str:
    """The grammar. Raises exceptions of many kinds where the converter does not know a schema."""
    converter = _Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    root = json.loads(json.dumps(schema))  # a copy: references are resolved in place
    if "$ref" in root:
        # Beside a reference the original resolves no others.
        root["anyOf"] = [{"$ref": root.pop("$ref")}]
    converter.visit(converter.resolve_refs(root, "schema"), "")
    return converter.format_grammar()


class _Converter(SchemaConverter):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._of_refs: dict[str, str] = {}

    def visit(self, schema: Any, name: str) -> str:
        """The name of the rule for a schema."""
        if schema is True or (name and not schema.keys() - _ANNOTATIONS):
            return self._add_primitive("value", PRIMITIVE_RULES["value"])
        rule = f"{name}-" if name in RESERVED_NAMES else name or "root"
        if isinstance(types := schema.get("type"), list):
            rest = {key: value for key, value in schema.items() if key != "type"}
            is_closed = "enum" in schema or "const" in schema
            schema = rest if is_closed else {"anyOf": [rest | {"type": kind} for kind in types]}
        elif types == "string" and schema.keys() & {"minLength", "maxLength"} and not schema.keys() & _OTHER:
            char = self._add_primitive("char", _CHAR)
            times = _times(schema.get("minLength", 0), schema.get("maxLength"))
            return self._add_rule(rule, rf'"\"" {char}{times} "\"" space')
        elif types == "integer" and schema.keys() & _BOUNDS and not schema.keys() & _OTHER:
            return self._add_rule(rule, f"({integers(*_bounds(schema))}) space")
        elif types == "array" and isinstance(schema.get("items"), dict) and schema.get("maxItems", 1) > 0:
            item = self.visit(schema["items"], f"{name}-item" if name else "item")
            least, most = schema.get("minItems", 0), schema.get("maxItems")
            more = _times(max(least - 1, 0), None if most is None else most - 1)
            items = f'{item} ("," space {item}){more}'
            return self._add_rule(rule, f'"[" space {items if least else f"({items})?"} "]" space')
        return super().visit(schema, name)

    def _add_rule(self, name: str, rule: str) -> str:
        return super()._add_rule(name, _DOT if rule == DOT else rule)

    def _add_primitive(self, name: str, rule: BuiltinRule) -> str:
        return super()._add_primitive(name, _CHAR if name == "char" else rule)

    def _format_literal(self, literal: str) -> str:
        """The literal is a JSON text. GBNF has escapes of its own, which the original takes JSON's for."""
        text = json.dumps(json.loads(literal), ensure_ascii=False)
        return super()._format_literal(text.replace("\\", "\\\\"))

    def _resolve_ref(self, ref: str) -> str:
        """The original takes any rule of the last part's name for the definition's."""
        if ref not in self._of_refs:
            name = next(free for i in itertools.count() if (free := f"ref{i}") not in self._rules)
            self._of_refs[ref] = name
            self._rules[name] = ""  # so that nothing else gets this name
            self._rules[name] = self.visit(self._refs[ref], f"{name}-is")
        return self._of_refs[ref]


def _times(least: int, most: int | None) -> str:
    """The original writes repetitions as nested parentheses, of which llama.cpp takes few."""
    return f"{{{least},{'' if most is None else most}}}"


def _bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The least and the largest integer that a schema allows."""
    least = [math.ceil(schema["minimum"])] if "minimum" in schema else []
    most = [math.floor(schema["maximum"])] if "maximum" in schema else []
    if "exclusiveMinimum" in schema:
        least.append(math.floor(schema["exclusiveMinimum"]) + 1)
    if "exclusiveMaximum" in schema:
        most.append(math.ceil(schema["exclusiveMaximum"]) - 1)
    return max(least, default=None), min(most, default=None)
