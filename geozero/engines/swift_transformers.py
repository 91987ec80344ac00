"""The transformers engine: ms-swift's `TransformersEngine`, with seeds of our own."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import BadRecord
from geozero.engines.base import ByBatch, Completion, Request, SamplingParams, failed, first_seed
from geozero.engines.prompts import Prompt, Prompter
from geozero.engines.template import TEMPLATE, register

ROWS_ON_CPU = 64  # completions generated together
ROWS_ON_GPU = 64


class TransformersEngine(ByBatch):
    """Answers through transformers' `generate`; runs wherever the model can be loaded.

    Args:
        path: the checkpoint's directory.
        dtype: `float32`, `bfloat16` or `float16`.
        max_pixels: most pixels of an image.
        max_length: most tokens of prompt and completion.
        template: ms-swift's template name.
        model_type: ms-swift's model type.
        reason: why this engine was chosen.
    """

    name = "transformers"

    def __init__(
        self,
        path: Path,
        *,
        dtype: str,
        max_pixels: int,
        max_length: int,
        template: str,
        model_type: str,
        reason: str = "asked for",
    ) -> None:
        process.prepare()
        self.path, self.dtype, self.reason = path, dtype, reason
        self.prompter = Prompter(path, max_pixels, max_length)
        import torch
        from swift.infer_engine import TransformersEngine as Swift
        from swift.model import get_model_processor
        from swift.template import get_template

        logging.getLogger("swift").setLevel(logging.ERROR)  # it tells every default that it takes
        if template == TEMPLATE:
            register()
        self._torch = torch
        model, processor = get_model_processor(
            str(path),
            torch_dtype=getattr(torch, dtype),
            model_type=model_type,
            attn_impl="sdpa",
            download_model=False,
        )
        # the template by its name, never from an args.json that training left beside the weights
        self._swift: Any = Swift(model, template=get_template(processor, template_type=template))
        self.rows = ROWS_ON_GPU if torch.cuda.is_available() else ROWS_ON_CPU

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`."""
        answers: list[list[Completion]] = [[] for _ in requests]
        ready: list[tuple[int, Prompt]] = []
        for number, request in enumerate(requests):
            try:
                ready.append((number, self.prompter.prepare(request)))
            except BadRecord as bad:
                answers[number] = failed(str(bad), params.n)
        greedy = params.temperature == 0
        at_once = max(1, self.rows // (1 if greedy else params.n))
        for start in range(0, len(ready), at_once):
            batch = ready[start : start + at_once]
            tokens = self._batch([(requests[n], p) for n, p in batch], params)
            for (number, prompt), rows in zip(batch, tokens, strict=True):
                budget = self.prompter.budget(prompt, params.max_tokens)
                seed = None if greedy else first_seed(requests[number], params)
                answers[number] = [self._completion(row, budget, seed, i) for i, row in enumerate(rows)]
                if greedy:
                    answers[number] *= params.n
        return answers

    def _batch(self, batch: Sequence[tuple[Request, Prompt]], params: SamplingParams) -> list[list[list[int]]]:
        """Token ids of the completions of each request of one batch."""
        from swift.infer_engine import InferRequest, RequestConfig
        from transformers import GenerationConfig, LogitsProcessorList

        from geozero.engines.seeded_sampler import SeededSampler

        greedy = params.temperature == 0
        n = 1 if greedy else params.n
        max_tokens = max(self.prompter.budget(prompt, params.max_tokens) for _, prompt in batch)
        seeds = [] if greedy else [first_seed(request, params) + i for request, _ in batch for i in range(n)]
        vocabulary = self.prompter.vocabulary
        sampler = SeededSampler(
            vocabulary.suppressed, seeds, max_tokens, params.temperature, params.top_p, params.top_k
        )

        def take_over(arguments: dict[str, Any]) -> dict[str, Any]:
            """Replace what ms-swift made of the checkpoint's generation config by exactly what was asked for."""
            arguments["generation_config"] = GenerationConfig(
                max_new_tokens=max_tokens,
                **(
                    {"do_sample": False}
                    if greedy
                    else {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
                ),
                num_return_sequences=n,
                eos_token_id=list(vocabulary.end),
                pad_token_id=self.prompter.tokenizer.pad_token_id,
                return_dict_in_generate=True,
            )
            arguments["inputs"]["logits_processor"] = LogitsProcessorList([sampler])
            return arguments

        asked = [
            InferRequest(
                messages=[dict(t) for t in request.messages],
                images=[prompt.image],
                chat_template_kwargs={"response_prefix": request.prefix} if request.prefix else {},
            )
            for request, prompt in batch
        ]
        # the temperature only says greedy or not: ms-swift refuses n > 1 of a checkpoint whose own default is greedy
        config = RequestConfig(max_tokens=max_tokens, n=n, temperature=0.0 if greedy else 1.0, return_details=True)
        responses = self._swift._infer(asked, config, pre_infer_hook=take_over)
        return [[list(choice.token_ids) for choice in response.choices] for response in responses]

    def _completion(self, row: list[int], budget: int, seed: int | None, rollout: int) -> Completion:
        end = set(self.prompter.vocabulary.end)
        length = next((i for i, token in enumerate(row) if token in end), len(row))
        cut = (
            length >= budget
        )  # the padding token, which ms-swift leaves out, is an end token: a short row ended itself
        tokens = row[: min(length, budget)]
        return Completion(
            self.prompter.decode(tokens),
            "length" if cut else "stop",
            len(tokens),
            None if seed is None else seed + rollout,
        )

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "ms-swift")}
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "dtype": self.dtype,
            "device": str(self._swift.model.device),
            "max_pixels": self.prompter.max_pixels,
            "max_length": self.prompter.max_length,
            "versions": versions,
        }

    def close(self) -> None:
        """See `Engine.close`."""
        import gc

        self._swift = None
        gc.collect()
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()
