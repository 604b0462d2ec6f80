"""Tools in text: how functions are described to a model, how it is made to call one, how its calls are read.

Pure functions of text: it knows neither the engine, nor HTTP.
"""

from deployments.tool_syntax.families import family_of
from deployments.tool_syntax.grammar import BadTools, tool_grammar
from deployments.tool_syntax.markers import MARKERS, THINK, THINKING, empty_thought, opens_thinking
from deployments.tool_syntax.parser import AnswerParser, without_thinking
from deployments.tool_syntax.parts import CallArguments, CallStarted, Part, ReasoningPart, TextPart
from deployments.tool_syntax.prompting import described, with_tools

__all__ = [
    "MARKERS",
    "THINK",
    "THINKING",
    "AnswerParser",
    "BadTools",
    "CallArguments",
    "CallStarted",
    "Part",
    "ReasoningPart",
    "TextPart",
    "described",
    "empty_thought",
    "family_of",
    "opens_thinking",
    "tool_grammar",
    "with_tools",
    "without_thinking",
]
