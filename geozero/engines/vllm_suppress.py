"""vLLM's part of `Vocabulary.suppressed`: a logits processor for the whole engine, loaded by vLLM by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from geozero.engines.checkpoint import Vocabulary

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class SuppressTokens(LogitsProcessor):  # type: ignore[misc]
    """Puts every suppressed token of the model that is served out of reach, whatever the request.

    vLLM does not read a generation config's `suppress_tokens`, and its `logit_bias` is bounded at −100.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        from transformers import AutoTokenizer

        path = Path(vllm_config.model_config.model)
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.suppressed = torch.tensor(Vocabulary.of(path, tokenizer).suppressed, dtype=torch.long, device=device)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Nothing depends on the batch."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill_(-1, self.suppressed[self.suppressed < logits.shape[-1]], float("-inf"))
