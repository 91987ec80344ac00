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

from geozero.engines.checkpoint import Vocabulary, content_hash, resolve, weight_files
from geozero.engines.seeded_sampler import draw, uniforms
from geozero.engines.serving.served_model import IDENTITY_BYTES

if TYPE_CHECKING:
    from vllm.config import VllmConfig

ARGUMENT = "geozero_draw"  # in `extra_args`: (seed, temperature, top_p, top_k); absent for greedy
IDENTITY = "geozero_identity"  # in `extra_args`: answer with the content hash of the checkpoint, a token per hex digit


@dataclass(frozen=True, slots=True)
class Row:
    """A sampled request: its random numbers, its parameters, and its tokens so far (vLLM's own list)."""

    uniforms: torch.Tensor
    temperature: float
    top_p: float
    top_k: int
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """A request that is answered with the digits of the checkpoint's content hash."""

    digits: list[int]
    tokens: list[int]


class LoadedFiles:
    """The files that a model was loaded from; their hash counts for the model only while they stay as they were."""

    def __init__(self, path: Path) -> None:
        self.path, self._digits = path, list[int]()
        self._stats = self._look()

    def digits(self) -> list[int]:
        """The content hash, digit by digit; zeros where the files have changed since."""
        if not self._digits:
            name = content_hash(self.path) if self._look() == self._stats else "0" * (2 * IDENTITY_BYTES)
            self._digits = [int(digit, 16) for digit in name]
        return self._digits

    def _look(self) -> list[tuple[str, int, int]]:
        return [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in weight_files(self.path)]


class SeededRows(LogitsProcessor):  # type: ignore[misc]
    """Suppresses tokens that may not be written, then samples for every request that carries a seed."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        from transformers import AutoTokenizer

        path = resolve(vllm_config.model_config.model)
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.suppressed = torch.tensor(Vocabulary.of(path, tokenizer).suppressed, dtype=torch.long, device=device)
        self.rows: dict[int, Row | IdentityRow] = {}
        self.loaded = LoadedFiles(path)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Let a server's request have n completions: greedy to vLLM, which refuses n greedy ones, numbered by seed."""
        if ARGUMENT in (sampling_params.extra_args or {}) and sampling_params.n > 1:
            sampling_params.temperature, sampling_params.seed = 0.0, 0

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow vLLM as it adds, removes and moves the requests of its batch."""
        process_dict_updates(self.rows, batch_update, self._row)

    def _row(self, params: SamplingParams, prompt: list[int] | None, tokens: list[int]) -> Row | IdentityRow | None:
        if IDENTITY in (params.extra_args or {}):
            return IdentityRow(self.loaded.digits(), tokens)
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
        for number, row in self.rows.items():
            if isinstance(row, IdentityRow):
                logits[number] = float("-inf")
                logits[number, row.digits[len(row.tokens) % len(row.digits)]] = 0.0
        drawn_rows = {number: row for number, row in self.rows.items() if isinstance(row, Row)}
        if not drawn_rows:
            return logits
        numbers, rows = list(drawn_rows), list(drawn_rows.values())
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
