"""The texts by which models mark calls and thinking."""

from __future__ import annotations

THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"  # Hermes, Qwen
TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"  # Mistral; the latter two in newer ones
PYTHON_TAG = "<|python_tag|>"  # Llama 3

THINKING = (THINK, THINK_END)
MARKERS = (*THINKING, CALL, CALL_END, TOOL_CALLS, ARGS, CALL_ID, PYTHON_TAG)
"""All of them. Some vocabularies have them as control tokens, which must then be shown as text to be read here."""


def opens_thinking(prompt_end: str) -> bool:
    """Whether a prompt that ends so has opened the model's thinking: its answer begins inside."""
    return prompt_end.rstrip().endswith(THINK)
