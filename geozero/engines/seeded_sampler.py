"""Our own sampling, the same in every engine: what is sampled depends on a completion's seed alone.

Inverse transform sampling: one uniform number per completion and token, from the completion's own generator on the
CPU. Neither the batch nor the device nor the engine changes which number is used, so engines differ only where their
logits do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

BELOW_ONE = 1.0 - 1e-12


def uniforms(seed: int, length: int) -> torch.Tensor:
    """The numbers in [0, 1) that sample a completion's tokens [length], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(length, generator=generator, dtype=torch.float64).clamp_(max=BELOW_ONE)


def draw(
    logits: torch.Tensor,
    uniform: torch.Tensor,
    temperature: float | torch.Tensor,
    top_p: float | torch.Tensor,
    top_k: int | torch.Tensor = 0,
) -> torch.Tensor:
    """Sample one token per row.

    Args:
        logits: [rows, vocabulary]; −inf for what must not be sampled.
        uniform: [rows, 1] in [0, 1), float64.
        temperature: above 0; a number, or [rows, 1].
        top_p: nucleus, 1 keeps every token; a number, or [rows, 1].
        top_k: keeps this many of the most likely tokens, before the nucleus; 0 keeps all; a number, or [rows, 1].

    Returns:
        Token ids [rows, 1].
    """
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    nucleus = torch.as_tensor(top_p, dtype=torch.float64, device=logits.device)
    kept = torch.as_tensor(top_k, dtype=torch.long, device=logits.device)
    order = None
    if bool((nucleus < 1.0).any() or (kept > 0).any()):
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(probabilities.shape[-1], device=logits.device)
        probabilities = probabilities.masked_fill((rank >= kept) & (kept > 0), 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill((before >= nucleus) & (nucleus < 1.0), 0.0)
    cumulative = probabilities.cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return drawn if order is None else order.gather(-1, drawn)


class SeededSampler:
    """A logits processor for transformers' `generate` that gives all but the sampled token −inf.

    Args:
        suppressed: token ids that are never sampled.
        seeds: one per row of the batch; empty for greedy, which only suppresses.
        max_tokens: maximum number of steps.
        temperature, top_p, top_k: see `draw`.
    """

    def __init__(
        self,
        suppressed: Sequence[int],
        seeds: Sequence[int] = (),
        max_tokens: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> None:
        self.suppressed = torch.tensor(list(suppressed), dtype=torch.long)
        self.temperature, self.top_p, self.top_k = temperature, top_p, top_k
        self.uniforms = torch.stack([uniforms(seed, max_tokens) for seed in seeds]) if seeds else None
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.suppressed = self.suppressed.to(scores.device)
        scores = scores.index_fill(-1, self.suppressed, float("-inf"))
        if self.uniforms is None:
            return scores
        uniform = self.uniforms[:, self.step : self.step + 1].to(scores.device)
        self.step += 1
        drawn = draw(scores, uniform, self.temperature, self.top_p, self.top_k)
        return torch.full_like(scores, float("-inf")).scatter_(-1, drawn, 0.0)
