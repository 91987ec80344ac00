"""The transformers engine: ms-swift's `TransformersEngine` with our own seeds."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import BadRecord
from geozero.engines.base import ByBatch, Completion, EngineOptions, Request, SamplingParams, failed, first_seed
from geozero.engines.checkpoint import loading
from geozero.engines.families import check_template
from geozero.engines.prompts import Prompt, Prompter
from geozero.engines.trust import forbid_code_in_swift

ROWS = 64  # completions generated together


class TransformersEngine(ByBatch):
    """Answers through transformers' `generate`; runs wherever the model can be loaded.

    Args:
        path: the checkpoint's directory.
        reason: why this engine was chosen.
        options: see `EngineOptions`; `dtype` is not `auto` here.
    """

    name = "transformers"

    def __init__(self, path: Path, *, reason: str = "requested", **options: Any) -> None:
        process.prepare()
        given = EngineOptions(**options)
        self.path, self.dtype, self.reason = path, given.dtype, reason
        self.prompter = Prompter(path, given)
        family = self.prompter.family
        template_name = given.template or family.templates[0]
        check_template(family, template_name)
        import torch
        from swift.infer_engine import TransformersEngine as Swift
        from swift.model import get_model_processor
        from swift.template import get_template

        logging.getLogger("swift").setLevel(logging.ERROR)  # it logs every default that it takes
        family.register_template()
        forbid_code_in_swift()
        self._torch = torch
        with loading(path):
            model, processor = get_model_processor(
                str(path),
                torch_dtype=getattr(torch, given.dtype),
                model_type=family.model_type,
                attn_impl="sdpa",
                download_model=False,
            )
        # the template by its name, never from an args.json that training left beside the weights
        template = get_template(processor, template_type=template_name)
        template.limits = self.prompter.limits
        self._swift: Any = Swift(model, template=template)

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        answers: list[list[Completion]] = [[] for _ in requests]
        ready: list[tuple[int, Prompt]] = []
        for number, request in enumerate(requests):
            try:
                ready.append((number, self.prompter.prepare(request)))
            except BadRecord as bad:
                answers[number] = failed(str(bad), params.n)
        greedy = params.temperature == 0
        size = max(1, ROWS // (1 if greedy else params.n))
        for start in range(0, len(ready), size):
            batch = ready[start : start + size]
            tokens = self._generate_batch([(requests[n], p) for n, p in batch], params)
            for (number, prompt), rows in zip(batch, tokens, strict=True):
                budget = self.prompter.budget(prompt, params.max_tokens)
                first = first_seed(requests[number], params)
                answers[number] = [
                    self.prompter.completion(row, budget, None if greedy else first + i) for i, row in enumerate(rows)
                ] * (params.n if greedy else 1)
        return answers

    def _generate_batch(self, batch: Sequence[tuple[Request, Prompt]], params: SamplingParams) -> list[list[list[int]]]:
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
        neutral = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}

        def override(arguments: dict[str, Any]) -> dict[str, Any]:
            """Replace what ms-swift made of the checkpoint's generation config by exactly what was requested."""
            arguments["generation_config"] = GenerationConfig(
                max_new_tokens=max_tokens,
                **neutral,
                num_return_sequences=n,
                eos_token_id=list(vocabulary.end),
                pad_token_id=self.prompter.tokenizer.pad_token_id,
                return_dict_in_generate=True,
            )
            arguments["inputs"]["logits_processor"] = LogitsProcessorList([sampler])
            return arguments

        inputs = [
            InferRequest(
                messages=[dict(t) for t in request.messages],
                images=[prompt.image],
                chat_template_kwargs={"response_prefix": request.prefix} if request.prefix else {},
            )
            for request, prompt in batch
        ]
        # the temperature only says greedy or not: ms-swift refuses n > 1 of a checkpoint whose own default is greedy
        config = RequestConfig(max_tokens=max_tokens, n=n, temperature=0.0 if greedy else 1.0, return_details=True)
        responses = self._swift._infer(inputs, config, pre_infer_hook=override)
        return [[list(choice.token_ids) for choice in response.choices] for response in responses]

    def describe(self) -> dict[str, Any]:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "ms-swift")}
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "dtype": self.dtype,
            "device": str(self._swift.model.device),
            **self.prompter.describe(),
            "versions": versions,
        }

    def close(self) -> None:
        self._swift = None
        gc.collect()
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()
