"""What the method costs a step: `python -m benchmarks.step_time [--row tiny|2b|vllm] [--without FEATURE]`. Goal: 1.02.

One training run in which steps alternate. Without --without, an even step is stock GRPO (ms-swift's own advantages and
KL on every token, the same two rewards) and an odd one A²GRPO; everything that is not the method (shared
encoding, one vision pass per image, the attention patch, no pass for the sampling policy's log-probabilities) is
on in both. With --without, all steps are A²GRPO's, and the even ones lack that one feature: what does it save?

Rows: the tiny model that samples itself; the widths of Qwen3-VL-2B (2 + 2 layers, LoRA, bfloat16, the 2B profile's
pixels; needs `pip install --no-deps -r requirements/real_shape.txt`); the tiny model with a colocated vLLM. All steps
see the same policy, data and machine, so the ratio of neighbours is what counts: its geometric mean with a bootstrap
interval over the pairs. On a CPU the seconds are the process's CPU seconds, so that a busy machine blurs them little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.real_shape.model import build

ROOT = Path(__file__).resolve().parents[1]
GOAL, WARM_UP, RESAMPLED = 1.02, 2, 2000
GROUP = 8
FEATURES = ("attention", "encoding", "images", "passes")
ROWS: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 24, "prompts": 4, "micro": 16, "tokens": 64, "pixels": 16384, "length": 512, "tuner": "full"},
    "2b": {"steps": 10, "prompts": 1, "micro": 4, "tokens": 48, "pixels": 802816, "length": 2048, "tuner": "lora"},
    "vllm": {"steps": 24, "prompts": 4, "micro": 16, "tokens": 64, "pixels": 16384, "length": 512, "tuner": "full"},
}


def intervals(ratios: list[float]) -> dict[str, float]:
    """Geometric mean of paired ratios with its 95 % bootstrap interval."""
    logs, rng = [math.log(ratio) for ratio in ratios], random.Random(7)
    means = sorted(sum(rng.choices(logs, k=len(logs))) / len(logs) for _ in range(RESAMPLED))
    low, high = means[int(0.025 * RESAMPLED)], means[int(0.975 * RESAMPLED)]
    return {"ratio": math.exp(sum(logs) / len(logs)), "low": math.exp(low), "high": math.exp(high), "pairs": len(logs)}


def train(options: argparse.Namespace, out: Path) -> None:
    """Run the alternating training in this process and write the seconds of each step to `out/steps.json`."""
    from geozero.common import process

    process.prepare()
    from geozero.corpus.store import Corpus
    from geozero.curation.ingest.ingest import ingest
    from geozero.training.dataset import swift_rows
    from geozero.training.launcher import launch

    ingest("neon", ROOT / "data/samples", out / "corpus", "all")
    corpus = Corpus(out / "corpus")
    swift_rows(corpus, "tagged", "norm1000", out / "rows.jsonl", choose=lambda _: corpus.samples())
    launch._hide_unused(["--use_vllm", "true"] if options.row == "vllm" else [])
    import torch
    from swift.rlhf_trainers import grpo_trainer
    from transformers.integrations import sdpa_attention

    from geozero.engines.families.image_dedup import ImageDedupHook
    from geozero.training.grpo import group_batching, trainer

    seconds: list[tuple[bool, float]] = []
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu or options.row == "vllm" else time.process_time
    ours, stock = trainer.A2GRPOTrainer, grpo_trainer.GRPOTrainer
    gqa, plain_encoding = sdpa_attention.use_gqa_in_sdpa, grpo_trainer.encode_sample
    shared_encoding = group_batching.EncodingCache(plain_encoding)
    look, off = ImageDedupHook._before, set[str]()  # the features that this step lacks

    def look_unless_off(self: Any, *given: Any) -> Any:
        self._owners = None
        return None if "images" in off else look(self, *given)

    setattr(ImageDedupHook, "_before", look_unless_off)  # noqa: B010 - its hooks are bound when the trainer is made

    class Alternating(ours):  # type: ignore[misc,valid-type]
        @property
        def is_even(self) -> bool:
            return int(self.state.global_step) % 2 == 0

        @property
        def is_stock(self) -> bool:
            return self.is_even and options.without is None

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            off.clear()
            if self.is_even and options.without is not None:
                off.add(options.without)
            sdpa_attention.use_gqa_in_sdpa = gqa if gpu or "attention" in off else lambda *_: True
            grpo_trainer.encode_sample = plain_encoding if "encoding" in off else shared_encoding
            _synchronize(gpu)
            start = clock()
            loss = super().training_step(*args, **kwargs)
            _synchronize(gpu)
            step, spent = int(self.state.global_step), clock() - start
            if len(seconds) > step:
                seconds[step] = (self.is_even, seconds[step][1] + spent)
            else:
                seconds.append((self.is_even, spent))
            return loss

        def _is_sampling_policy(self, model: Any) -> bool:
            return "passes" not in off and super()._is_sampling_policy(model)

        def _prepare_batch_inputs(self, samples: list[Any]) -> list[dict[str, Any]]:
            of = stock if self.is_stock else ours
            return list(of._prepare_batch_inputs(self, samples))

        def _compute_advantages(self, *args: Any) -> torch.Tensor:
            of = stock if self.is_stock else ours
            found: torch.Tensor = of._compute_advantages(self, *args)
            return found

        def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.is_stock:
                return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
            if not torch.is_grad_enabled() and self._is_sampling_policy(model):
                return None, None
            return stock._get_per_token_logps_and_entropies(self, model, *args, **kwargs)

    Alternating.__name__ = Alternating.__qualname__ = "A2GRPOTrainer"  # found by this name in its module
    trainer.A2GRPOTrainer = Alternating  # type: ignore[misc]
    half, vllm = gpu or options.row == "2b", options.row == "vllm"
    words = (
        f"--model {options.model} --model_type qwen3_vl --template geozero_qwen3_vl --dataset {out / 'rows.jsonl'} "
        "--split_dataset_ratio 0 --add_version false --check_model false --report_to none --attn_impl sdpa "
        f"--torch_dtype {'bfloat16' if half else 'float32'} --bf16 {str(half).lower()} --fp16 false "
        f"--max_pixels {options.pixels} --max_length {options.length} --tuner_type {options.tuner} --freeze_vit true "
        f"--freeze_aligner true --gradient_checkpointing {str(gpu).lower()} --max_steps {options.steps} "
        f"--per_device_train_batch_size {options.micro} "
        f"--gradient_accumulation_steps {options.prompts * GROUP // options.micro} "
        f"--num_generations {GROUP} --max_completion_length {options.tokens} --beta 0.04 --learning_rate 1e-6 "
        "--warmup_ratio 0 --seed 7 --save_strategy no --logging_steps 1 --disable_tqdm true --dataset_num_proc 1 "
        f"--dataloader_num_workers 0 --lora_dropout 0 --output_dir {out / 'run'} "
        + ("" if gpu else "--use_cpu true ")
        + (f"--use_vllm true --vllm_mode colocate --vllm_max_model_len {options.length} " if vllm else "")
        + ("--vllm_enforce_eager true " if vllm and not gpu else "")
    )
    launch.main(["grpo", *words.split()])
    (out / "steps.json").write_text(json.dumps(seconds))


def _synchronize(gpu: bool) -> None:
    import torch

    if gpu:
        torch.cuda.synchronize()


def main() -> int:
    """Print one line of JSON; 1 where the goal is missed beyond doubt (the whole interval lies above it)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=ROWS, default="tiny")
    parser.add_argument("--without", choices=FEATURES, help="compare A²GRPO with itself, less this feature")
    parser.add_argument("--model", type=Path, help="if left out, the row's")
    for name in ("steps", "prompts", "micro", "tokens", "pixels", "length"):
        parser.add_argument(f"--{name}", type=int, help="if left out, the row's")
    parser.add_argument("--tuner", choices=["full", "lora"], help="if left out, the row's")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, value in ROWS[options.row].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.child is not None:
        if options.model is None:
            options.model = ROOT / "models/tiny-qwen3-vl"
            if options.row == "2b":
                options.model = options.child / "model"
                build(options.model)
        train(options, options.child)
        return 0
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MODELSCOPE_CACHE": f"{place}/cache"}
        words = [sys.executable, "-m", "benchmarks.step_time", *sys.argv[1:], "--child", place]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout[-2000:] + done.stderr[-4000:], file=sys.stderr)
            return done.returncode
        seconds = json.loads((Path(place) / "steps.json").read_text())[WARM_UP:]
    even = [spent for is_even, spent in seconds if is_even]
    odd = [spent for is_even, spent in seconds if not is_even]
    found = intervals([a / b for a, b in zip(odd, even, strict=False)])
    other = "stock" if options.without is None else f"without_{options.without}"
    means = {f"{other}_seconds": sum(even) / len(even), "a2grpo_seconds": sum(odd) / len(odd)}
    print(json.dumps({"row": options.row, **{k: round(v, 4) for k, v in {**found, **means}.items()}, "goal": GOAL}))
    return 0 if found["low"] <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
