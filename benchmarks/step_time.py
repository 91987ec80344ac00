"""Time A²GRPO against stock ms-swift GRPO: `python -m benchmarks.step_time [--steps N] [--model DIR] …`. Goal: 1.02.

One training run in which steps alternate: an even step is ms-swift's own, untouched (same two rewards, KL on every
token, its encoding, vision pass and old log-probabilities), an odd one is A²GRPO's. Both see the same policy, data and
machine, so the ratio of neighbours is what counts: its geometric mean with a bootstrap interval over the pairs. On a
CPU the seconds are CPU seconds of the training process, so that a busy machine does not blur them.
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

ROOT = Path(__file__).resolve().parents[1]
GOAL, WARM_UP, RESAMPLED = 1.02, 2, 2000
GROUP, MICRO = 8, 16


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
    launch._hide_unused([])
    import torch
    from swift.rlhf_trainers import grpo_trainer
    from transformers.integrations import sdpa_attention

    from geozero.engines.families.image_dedup import ImageDedupHook
    from geozero.training.grpo import group_batching, trainer

    seconds: list[tuple[bool, float]] = []
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    ours, stock = trainer.A2GRPOTrainer, grpo_trainer.GRPOTrainer
    gqa = sdpa_attention.use_gqa_in_sdpa
    plain_encoding = grpo_trainer.encode_sample
    look, sharing = ImageDedupHook._before, {"images": True}

    def look_if_shared(self: Any, *given: Any) -> Any:
        self._owners = None
        return look(self, *given) if sharing["images"] else None

    setattr(ImageDedupHook, "_before", look_if_shared)  # noqa: B010 - its hooks are bound when the trainer is made

    def overrides(name: str) -> Any:
        """The method of whichever trainer this step belongs to."""

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(stock if self.is_stock else ours, name)(self, *args, **kwargs)

        return method

    class Alternating(ours):  # type: ignore[misc,valid-type]
        @property
        def is_stock(self) -> bool:
            return int(self.state.global_step) % 2 == 0

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            shared = not self.is_stock
            sdpa_attention.use_gqa_in_sdpa = (lambda *_: True) if shared and not torch.cuda.is_available() else gqa
            grpo_trainer.encode_sample = self.shared_encoding if shared else plain_encoding
            sharing["images"] = shared
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = clock()
            loss = super().training_step(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            step = int(self.state.global_step)
            spent = clock() - start
            if len(seconds) > step:
                seconds[step] = (self.is_stock, seconds[step][1] + spent)
            else:
                seconds.append((self.is_stock, spent))
            return loss

    for name in expected_overrides(ours, stock):
        setattr(Alternating, name, overrides(name))
    Alternating.shared_encoding = group_batching.EncodingCache(plain_encoding)
    Alternating.__name__ = Alternating.__qualname__ = "A2GRPOTrainer"  # found by this name in its module
    trainer.A2GRPOTrainer = Alternating  # type: ignore[misc]
    gpu = torch.cuda.is_available()
    words = (
        f"--model {options.model} --model_type qwen3_vl --template geozero_qwen3_vl --dataset {out / 'rows.jsonl'} "
        "--split_dataset_ratio 0 --add_version false --check_model false --report_to none --attn_impl sdpa "
        f"--torch_dtype {'bfloat16' if gpu else 'float32'} --bf16 {str(gpu).lower()} --fp16 false "
        f"--max_pixels {options.pixels} --max_length {options.length} --tuner_type {options.tuner} --freeze_vit true "
        f"--freeze_aligner true --gradient_checkpointing {str(gpu).lower()} --max_steps {options.steps} "
        f"--per_device_train_batch_size {MICRO} --gradient_accumulation_steps {options.prompts * GROUP // MICRO} "
        f"--num_generations {GROUP} --max_completion_length {options.tokens} --beta 0.04 --learning_rate 1e-6 "
        "--warmup_ratio 0 --seed 7 --save_strategy no --logging_steps 1 --disable_tqdm true --dataset_num_proc 1 "
        f"--dataloader_num_workers 0 --lora_dropout 0 --output_dir {out / 'run'} " + ("" if gpu else "--use_cpu true ")
    )
    launch.main(["grpo", *words.split()])
    (out / "steps.json").write_text(json.dumps(seconds))


def expected_overrides(ours: Any, stock: Any) -> list[str]:
    """The methods of the training loop that A²GRPO overrides; construction and sampling engine stay common."""
    common = {"__init__", "prepare_rollout"}
    return [n for n, v in vars(ours).items() if callable(v) and n not in common and hasattr(stock, n)]


def main() -> int:
    """Print one line of JSON; 1 where the goal is missed beyond doubt (the whole interval lies above it)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models/tiny-qwen3-vl")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=16384)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tuner", choices=["full", "lora"], default="full")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
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
    stock = [spent for is_stock, spent in seconds if is_stock]
    ours = [spent for is_stock, spent in seconds if not is_stock]
    found = intervals([a / b for a, b in zip(ours, stock, strict=False)])
    means = {"stock_seconds": sum(stock) / len(stock), "a2grpo_seconds": sum(ours) / len(ours)}
    print(json.dumps({k: round(v, 4) for k, v in {**found, **means}.items()} | {"goal": GOAL}))
    return 0 if found["low"] <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
