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


def empty_thought(template: str, prompt_end: str) -> str:
    """What a prompt goes on with, so that the answer comes without thinking: an empty thought, in the manner of Qwen's
    templates. Nothing where the template knows no thinking."""
    if not any(mark in template for mark in THINKING) or prompt_end.rstrip().endswith(THINK_END):
        return ""
    if not opens_thinking(prompt_end):
        return f"{THINK}\n\n{THINK_END}\n\n"
    written = len(prompt_end) - len(prompt_end.rstrip("\n"))
    return "\n" * (2 - written) + f"{THINK_END}\n\n"
