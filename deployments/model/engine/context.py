"""llama.cpp's context for a model: the memory and the threads that compute."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from deployments.model.engine.bindings import llama
from deployments.model.engine.errors import EngineError, ModelFileError
from deployments.model.engine.model_file import last_errors
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.speculation import MOST_DRAFTING_SEQUENCES

FLASH_ATTENTION_OFF, FLASH_ATTENTION_ON = 0, 1


def open_context(model: ctypes.c_void_p, options: EngineOptions, sequence_tokens: int) -> ctypes.c_void_p:
    """A context with `max_slots` streams of `sequence_tokens` cells, and the adapters. Raises EngineError when there is
    no memory for it, ModelFileError when an adapter does not fit the model."""
    params = llama.llama_context_default_params()
    params.n_ctx = options.max_slots * sequence_tokens
    params.n_batch, params.n_ubatch = options.most_step_tokens, min(options.n_batch, options.n_ubatch)
    params.n_seq_max = options.max_slots
    params.n_outputs_max = most_outputs(options)
    params.n_threads = params.n_threads_batch = options.n_threads
    params.kv_unified = options.kv_unified
    # On: 8 to 32 short sequences decode a tenth faster. Off: a long prompt in small pieces does. Autotune decides.
    params.flash_attn_type = FLASH_ATTENTION_ON if options.flash_attention else FLASH_ATTENTION_OFF
    params.no_perf = True
    context = llama.llama_init_from_model(model, params)
    if not context:
        reason = f": {last_errors[0]}" if last_errors else ""
        raise EngineError(
            f"no context of {options.max_slots} x {sequence_tokens} tokens{reason}; "
            "lower max_slots or max_sequence_tokens"
        )
    if options.lora:
        _add_adapters(model, context, options.lora)
    return context


def most_outputs(options: EngineOptions) -> int:
    """Rows of logits that a step may ask for: one of each slot, and those of drafts. More end the process."""
    return options.max_slots + MOST_DRAFTING_SEQUENCES * options.draft_tokens


def _add_adapters(model: ctypes.c_void_p, context: ctypes.c_void_p, lora: tuple[tuple[Path, float], ...]) -> None:
    adapters: list[Any] = []
    for path, _ in lora:
        last_errors.clear()
        adapter = llama.llama_adapter_lora_init(model, str(path).encode()) if path.is_file() else None
        if not adapter:
            reason = last_errors[0] if last_errors else "no such file"
            raise ModelFileError(f"LoRA adapter {path} cannot be used with this model: {reason}")
        adapters.append(adapter)
    pointers = (llama.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
    scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in lora))
    if llama.llama_set_adapters_lora(context, pointers, len(adapters), scales) != 0:
        raise ModelFileError("the LoRA adapters do not fit this model")
