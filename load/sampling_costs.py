"""What each kind of sampling costs a token, on the bundled model's own logits: `python -m load.sampling_costs`.

Median of 300 calls, in microseconds. The last line is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from deployments.config import bundled_model_file
from deployments.model.engine import GenerationRequest
from deployments.model.engine.bindings import llama
from deployments.model.engine.context import open_context
from deployments.model.engine.grammar import Grammar
from deployments.model.engine.model_file import load_model
from deployments.model.engine.request import EngineOptions
from deployments.model.engine.sampler import Sampler
from deployments.model.engine.vocabulary import Vocabulary

PROMPT = "The three things that matter most in a good story are"
CALLS = 300
PLAIN: dict[str, Any] = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "repeat_penalty": 1.0, "seed": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "top_k 40": {"top_k": 40},
    "top_k 40, top_p 0.9": {"top_k": 40, "top_p": 0.9},
    "top_p 0.9": {"top_p": 0.9},
    "top_p 0.999": {"top_p": 0.999},
    "min_p 0.05": {"min_p": 0.05},
    "typical_p 0.9": {"typical_p": 0.9},
    "repeat_penalty 1.1": {"temperature": 0.0, "repeat_penalty": 1.1},
    "presence and frequency penalty": {"temperature": 0.0, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "logit_bias of 300 tokens": {"temperature": 0.0, "logit_bias": dict.fromkeys(range(300), 1.0)},
    "ignore_eos": {"temperature": 0.0, "ignore_eos": True},
}


def _microseconds(call: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return round(median(times) * 1e6, 1)


def main() -> None:
    """Prints a table, then the same as JSON."""
    model = load_model(bundled_model_file(), 0)
    options = EngineOptions(max_slots=1)
    context = open_context(model, options, 512)
    vocabulary = Vocabulary(model)
    tokens = vocabulary.tokenize(PROMPT)
    prompt = (llama.llama_token * len(tokens))(*tokens)  # the batch points into it
    batch = llama.llama_batch_get_one(prompt, len(tokens))
    assert llama.llama_decode(context, batch) == 0
    logits = np.ctypeslib.as_array(llama.llama_get_logits(context), shape=(vocabulary.size,)).copy()
    costs: dict[str, float] = {}
    for name, changes in SETTINGS.items():
        produced = tuple(range(500, 564))
        sampler = Sampler(GenerationRequest((1,), produced_token_ids=produced, **(PLAIN | changes)), vocabulary)
        costs[name] = _microseconds(lambda sampler=sampler: sampler.sample(logits))
    for wanted in (0, 20):
        sampler = Sampler(GenerationRequest((1,), top_logprobs=wanted, **PLAIN), vocabulary)
        costs[f"log-probabilities, {wanted} beside"] = _microseconds(lambda sampler=sampler: sampler.logprob(logits, 1))
    grammar = Grammar('root ::= "{" [a-z ]+ "}"', vocabulary)
    token = vocabulary.tokenize("{")[0]
    costs["grammar, token allowed"] = _microseconds(lambda: grammar.allows(token))
    costs["grammar, token refused: full mask"] = _microseconds(lambda: grammar.mask(logits))
    for name, cost in costs.items():
        print(f"{name:<36}{cost:>10.1f}")
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
