"""Our sampling inside vLLM: a logits processor for the whole engine, which vLLM loads by its name.

It leaves one token per row, which vLLM then takes greedily. vLLM's own seeds are not used: on a CPU a seeded request
whose prompt is processed in two steps ends the engine ("CPU Generator does not use offset", vLLM 0.32.0), and its
random numbers differ from transformers'. Nor does vLLM read a generation config's `suppress_tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from geozero.engines.checkpoint import Vocabulary
from geozero.engines.seeded_sampler import draw, uniforms

if TYPE_CHECKING:
    from vllm.config import VllmConfig

ARGUMENT = "geozero_draw"  # in `extra_args`: (seed, temperature, top_p, top_k); absent for greedy


@dataclass(frozen=True, slots=True)
class Row:
    """A sampled request: its random numbers, its parameters, and its tokens so far (vLLM's own list)."""

    uniforms: torch.Tensor
    temperature: float
    top_p: float
    top_k: int
    tokens: list[int]


class SeededRows(LogitsProcessor):  # type: ignore[misc]
    """Suppresses tokens that may not be written, then samples for every request that carries a seed."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        from transformers import AutoTokenizer

        path = Path(vllm_config.model_config.model)
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.suppressed = torch.tensor(Vocabulary.of(path, tokenizer).suppressed, dtype=torch.long, device=device)
        self.rows: dict[int, Row] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow vLLM as it adds, removes and moves the requests of its batch."""
        process_dict_updates(self.rows, batch_update, self._row)

    @staticmethod
    def _row(params: SamplingParams, prompt: list[int] | None, tokens: list[int]) -> Row | None:
        arguments = (params.extra_args or {}).get(ARGUMENT)
        if arguments is None:
            return None
        seed, temperature, top_p, top_k = arguments
        numbers = uniforms(int(seed) + (params.seed or 0), int(params.max_tokens))  # vLLM counts n completions by seed
        return Row(numbers, float(temperature), float(top_p), int(top_k), tokens)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        logits.index_fill_(-1, self.suppressed, float("-inf"))
        if not self.rows:
            return logits
        device = logits.device
        numbers, rows = list(self.rows), list(self.rows.values())
        # by the number of tokens, not by a counter: vLLM throws away what it samples from half a prompt
        uniform = torch.stack([row.uniforms[min(len(row.tokens), len(row.uniforms) - 1)] for row in rows])
        drawn = draw(
            logits[numbers],
            uniform[:, None].to(device),
            torch.tensor([[row.temperature] for row in rows], dtype=torch.float64, device=device),
            torch.tensor([[row.top_p] for row in rows], dtype=torch.float64, device=device),
            torch.tensor([[row.top_k] for row in rows], dtype=torch.long, device=device),
        )
        logits[numbers] = torch.full_like(logits[numbers], float("-inf")).scatter_(-1, drawn, 0.0)
        return logits
