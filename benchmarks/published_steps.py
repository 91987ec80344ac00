"""The estimate of a step's time against published runs: `python -m benchmarks.published_steps`. Goal: within 1.5.

Each row gives what its source states (model, GPUs, batch, micro-batches, tokens per GPU and second, seconds per step)
and what the estimate makes of it. Tokens per sequence are those of the source: throughput × seconds × GPUs / sequences;
how they divide into prompt and completion is assumed where the source does not say. Nothing is run. The estimate's
constants were fitted to these rows: they show what the formula can describe, not how it does on another kind of run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from geozero.training.estimate.model_size import ModelSize
from geozero.training.estimate.step_time import Batch, Gpus, step_time

GOAL = 1.5
H100, H800, L20 = (989.0, 3350.0), (989.0, 3350.0), (119.5, 864.0)  # dense bfloat16 TFLOP/s and GB/s, by data sheet
AMP, BF16 = 16, 8  # bytes of a parameter's states that EasyR1 moves to the host and back: weights and two moments


def _text(layers: int, hidden: int, inner: int, keys: int, parameters: float, vision: float = 0.0) -> ModelSize:
    """A published size; only what a step's time depends on."""
    sizes: dict[str, Any] = dict.fromkeys(("vision_layers", "vision_hidden", "vision_intermediate"), 0)
    return ModelSize(
        text=int(parameters - vision), vision=int(vision), layer=0, layers=layers, hidden=hidden, intermediate=inner,
        vocabulary=152_064, patch=14, merge=2, linear=(), keys=keys, **sizes,
    )  # fmt: skip


QWEN25_VL = {
    "3B": _text(36, 2048, 11008, 256, 3.75e9, 0.67e9),
    "7B": _text(28, 3584, 18944, 512, 8.29e9, 0.68e9),
    "32B": _text(64, 5120, 27648, 1024, 33.5e9, 0.69e9),
}
EASY_R1 = Batch(sequences=512 * 5, prompt=275, completion=400, cap=2048, micro=4, images=512 * 5, group=5,
                micro_forward=16, forwards=2,
                rounds=(1.0,), padded_to=None)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A run that somebody measured: its name, size, batch, GPUs, bytes moved per GPU, and seconds per step."""

    source: str
    run: str
    shape: ModelSize
    batch: Batch
    gpus: Gpus
    moved: float
    seconds: float


def _easy_r1(
    size: str, gpu: tuple[float, float], micro: int, forward: int, engine: int, rate: float, seconds: float, state: int
) -> Published:
    shape = QWEN25_VL[size]
    tokens = rate * 8 * seconds / EASY_R1.sequences
    # its runs are free of padding: every sequence takes its own length
    batch = replace(EASY_R1, completion=tokens - EASY_R1.prompt, micro=micro, micro_forward=forward, padded_to=tokens)
    name = f"Qwen2.5-VL-{size}, 8 × {'H100' if gpu == H100 else 'L20'}, micro-batch {micro}"
    gpus = Gpus(8, *gpu, sharded=True, per_engine=engine)
    return Published("EasyR1 0.3", name, shape, batch, gpus, state * shape.parameters / 8, seconds)


def runs() -> list[Published]:
    """All rows."""
    llama, qwen3 = _text(32, 4096, 14336, 1024, 8.03e9), _text(64, 5120, 25600, 1024, 32.8e9)
    qwen35 = _text(32, 4096, 12288, 1024, 9.4e9)
    nemo = Batch(
        sequences=2048, prompt=160, completion=900, cap=4096, micro=2, group=32, update=3, forwards=2, rounds=(1.0,)
    )
    return [
        _easy_r1("3B", H100, 4, 16, 2, 1200, 180, AMP),
        _easy_r1("7B", H100, 4, 16, 2, 1200, 180, AMP),
        _easy_r1("7B", H100, 10, 20, 2, 1400, 170, AMP),
        _easy_r1("7B", L20, 4, 16, 2, 410, 580, AMP),
        _easy_r1("7B", H100, 4, 16, 2, 1280, 190, BF16),
        _easy_r1("32B", H100, 1, 8, 8, 360, 860, BF16),
        Published(
            "NeMo RL 0.4", "Llama-3.1-8B, 16 × H100", llama, replace(nemo, padded_to=1060),
            Gpus(16, *H100), 2.0 * llama.parameters / 2, 97.7,
        ),
        Published(
            "NeMo RL 0.4", "Qwen3-32B, 32 × H100", qwen3,
            replace(nemo, completion=3046, micro=1, padded_to=3206), Gpus(32, *H100, per_engine=4),
            2.0 * qwen3.parameters / 16, 393.0,
        ),
        Published(  # it states MFU 2.3–2.7 %, and that padding is not removed: 1,024 + 2,048 tokens a sequence
            "verl 0.9", "Qwen3.5-9B with images, 8 × H800, MFU as measured", qwen35,
            Batch(
                sequences=160, prompt=1024, completion=1050, cap=2048, micro=2, images=160, group=5, forwards=2,
                rounds=(1.0,), padded_to=3072,
            ),
            Gpus(8, *H800, mfu=0.025, per_engine=8), 2.0 * qwen35.parameters / 8, 290.0,
        ),
    ]  # fmt: skip


def main() -> int:
    """Print the table; exit code 1 where a ratio misses the goal."""
    print("source\trun\tpublished s\testimated s\tratio\tsampling\tforwards\tupdate\thost\tMFU")
    missed = 0
    for row in runs():
        found = step_time(row.shape, row.batch, row.gpus, row.moved)
        ratio = found.total / row.seconds
        missed += not 1 / GOAL <= ratio <= GOAL
        parts = "\t".join(f"{part:.0f}" for part in (found.sampling, found.forwards, found.update, found.host))
        print(f"{row.source}\t{row.run}\t{row.seconds:g}\t{found.total:.0f}\t{ratio:.2f}\t{parts}\t{found.mfu:.3f}")
    print(f"outside a factor of {GOAL}: {missed} of {len(runs())}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
