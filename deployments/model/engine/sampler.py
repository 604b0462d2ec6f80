"""The next token of a sequence, from its logits.

Cost of a token, measured: the table in load/README.md (`python -m load.sampling_costs`).
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from deployments.model.engine import truncation
from deployments.model.engine.grammar import Grammar, schema_grammar
from deployments.model.engine.penalties import Penalties
from deployments.model.engine.request import GenerationRequest, TokenLogprob
from deployments.model.engine.vocabulary import Vocabulary


class Sampler:
    """Exact sampling in numpy: bias, penalties, top-k, typical, top-p, min-p, temperature, in llama.cpp's order.

    Random numbers depend on the seed and the number of tokens produced: with a seed, a resumed answer draws those
    that it would have drawn. For one thread at a time. Raises InvalidRequest when made.
    """

    def __init__(self, request: GenerationRequest, vocabulary: Vocabulary) -> None:
        self._request = request
        self._end = min(vocabulary.end_ids, default=vocabulary.eos)
        vocabulary.check(tuple(request.logit_bias), "logit_bias")
        self._penalties = Penalties(request, vocabulary)
        text = schema_grammar(request.json_schema) if request.json_schema is not None else request.grammar
        self._grammar = Grammar(text, vocabulary, request.produced_token_ids) if text is not None else None
        seed = request.seed if request.seed is not None else secrets.randbits(64)
        # Two numbers a token: the second where the grammar refuses what the first has drawn.
        bits = np.random.PCG64(seed).advance(2 * len(request.produced_token_ids))
        self._random = np.random.Generator(bits)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """Picks a token; `logits` has one value a token of the vocabulary and is left unchanged. Raises GrammarTooSlow:
        then this sampler is of no more use."""
        changed = self._penalties.apply(logits)
        first, second = self._random.random(), self._random.random()
        token = self._pick(changed, first)
        if grammar := self._grammar:
            drawn = token
            allowed = grammar.in_time(lambda: self._within(grammar, changed, drawn, second))
            if allowed is None:
                return self._end  # the grammar is at its end, which ignore_eos forbids
            token = allowed
        self._penalties.accept(token)
        return token

    def _within(self, grammar: Grammar, logits: NDArray[np.float32], token: int, uniform: float) -> int | None:
        """The token, or another one that the grammar allows. None where it allows no more."""
        # The full mask costs 3 ms: most tokens that a model draws are allowed.
        if not grammar.allows(token):
            logits = grammar.mask(logits)
            if logits.max() == -np.inf:
                return None
            token = self._pick(logits, uniform)
        grammar.accept(token)
        return token

    def _pick(self, logits: NDArray[np.float32], uniform: float) -> int:
        request = self._request
        if request.temperature <= 0:
            return int(logits.argmax())
        candidates = truncation.all_of(logits)
        if request.top_k:
            candidates = truncation.top_k(candidates, request.top_k)
        if request.typical_p < 1:
            candidates = truncation.typical(candidates, request.typical_p)
        if request.top_p < 1 or request.min_p > 0:
            candidates = truncation.nucleus(candidates, request.top_p, request.min_p)
        return truncation.draw(candidates, request.temperature, uniform)

    def logprob(self, logits: NDArray[np.float32], token: int) -> TokenLogprob:
        """Of a token, before penalties and temperature, with the likeliest ones that the request wants beside it."""
        highest = logits.max()
        total = float(np.log(np.exp(logits - highest).sum(dtype=np.float64)) + highest)
        wanted = self._request.top_logprobs or 0
        ids, values = truncation.top_k((np.arange(logits.size), logits), wanted) if wanted else ((), ())
        likeliest = sorted(zip(ids, values, strict=True), key=lambda pair: -pair[1])
        top = tuple((int(other), float(value) - total) for other, value in likeliest)
        return TokenLogprob(token, float(logits[token]) - total, top)

    def close(self) -> None:
        """Frees the grammar's memory. Idempotent."""
        if self._grammar:
            self._grammar.close()
