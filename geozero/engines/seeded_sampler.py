"""Sampling inside transformers' `generate` that depends on each completion's own seed, not on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BELOW_ONE = 1.0 - 1e-12


class SeededSampler:
    """A logits processor that draws the next token itself and leaves `generate` no choice: every other one gets −inf.

    Inverse transform sampling: one uniform number a completion and step, from the completion's own generator on
    the CPU, so neither the batch's make-up nor the device changes what is drawn.

    Args:
        suppressed: token ids that are never drawn.
        seeds: one a row of the batch; empty for greedy, which only suppresses.
        max_tokens: most steps.
        temperature: above 0 where there are seeds.
        top_p: nucleus; 1 keeps every token.
    """

    def __init__(
        self,
        suppressed: Sequence[int],
        seeds: Sequence[int] = (),
        max_tokens: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> None:
        self.suppressed = torch.tensor(list(suppressed), dtype=torch.long)
        self.temperature, self.top_p = temperature, top_p
        self.uniforms: torch.Tensor | None = None
        if seeds:
            rows = [
                torch.rand(max_tokens, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds
            ]
            self.uniforms = torch.stack(rows).clamp_(max=BELOW_ONE)
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.suppressed = self.suppressed.to(scores.device)
        scores = scores.index_fill(-1, self.suppressed, float("-inf"))
        if self.uniforms is None:
            return scores
        uniform = self.uniforms[:, self.step : self.step + 1].to(scores.device)
        self.step += 1
        probabilities = torch.softmax(scores.double() / self.temperature, dim=-1)
        order = None
        if self.top_p < 1.0:
            probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= self.top_p, 0.0)
        cumulative = probabilities.cumsum(-1)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        if order is not None:
            drawn = order.gather(-1, drawn)
        return torch.full_like(scores, float("-inf")).scatter_(-1, drawn, 0.0)
