"""What a tiny base model can do before it has learned any task: `python -m benchmarks.base [--model DIR] [-n 400]`.

Everyday questions about rendered scenes that it has not seen, half of them of the harder world; greedy, with the system
prompt (`tagged`: the answer in its tags) and without (`sentence`: the answer somewhere in the text).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from geozero.common import process
from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.boxes import iou, parse_box
from geozero.tasks.text import tagged_answer
from geozero.toy.model.build import MERGE, PATCH
from geozero.toy.world.description import GenericQuestion, everyday_question
from geozero.toy.world.scene import render, sample_scene

FIRST_SCENE = 9_000_000  # far from those that the recipe renders
KINDS = ("presence", "comparison", "count", "land", "scene", "where")
BATCH = 50
RIGHT_IOU = 0.5


def right(question: GenericQuestion, text: str, mode: str) -> bool:
    """Whether the answer is there: in its tags, or as a word of the sentence; a box by IoU."""
    said = (tagged_answer(text) or "") if mode == "tagged" else text
    if question.kind == "where":
        box, truth = parse_box(said), parse_box(question.answer)
        return bool(box and truth and iou(box, truth) >= RIGHT_IOU)
    if mode == "tagged":
        return said == question.answer
    words = said.lower().replace(".", "").replace(",", "").split()
    return question.answer.lower() in words or (" " in question.answer and question.answer in said)


def main() -> int:
    """Ask and print the share of right answers by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny-qwen3-vl"))
    parser.add_argument("-n", type=int, default=400, help="questions")
    parser.add_argument("--seed", type=int, default=1)
    given, _ = parser.parse_known_args()
    process.prepare()
    import torch
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    from geozero.toy.model import vision

    model = Qwen3VLForConditionalGeneration.from_pretrained(given.model, dtype=torch.float32).eval()
    tokenizer: Any = AutoProcessor.from_pretrained(given.model).tokenizer
    tokenizer.padding_side = "left"
    rng = random.Random(given.seed)
    scenes = [sample_scene(FIRST_SCENE + i, hard=i % 2 == 1) for i in range(given.n)]
    questions = [everyday_question(scene, rng, rng.choice(KINDS)) for scene in scenes]
    for mode in ("tagged", "sentence"):
        system = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n" if mode == "tagged" else ""
        found: dict[str, list[bool]] = defaultdict(list)
        for start in range(0, given.n, BATCH):
            batch = questions[start : start + BATCH]
            pixels = np.stack([render(scene) for scene in scenes[start : start + BATCH]])
            side = pixels.shape[1] // PATCH
            image = f"<|vision_start|>{'<|image_pad|>' * (side // MERGE) ** 2}<|vision_end|>"
            texts = [f"{system}<|im_start|>user\n{image}{q.question}<|im_end|>\n<|im_start|>assistant\n" for q in batch]
            inputs = tokenizer(texts, return_tensors="pt", padding=True)
            pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
            with torch.inference_mode():
                rows = model.generate(
                    **inputs,
                    mm_token_type_ids=(inputs["input_ids"] == pad).int(),
                    pixel_values=vision.patches(pixels),
                    image_grid_thw=torch.tensor([[1, side, side]] * len(batch)),
                    max_new_tokens=90,
                    do_sample=False,
                )
            for question, row in zip(batch, rows[:, inputs["input_ids"].shape[1] :], strict=True):
                text = tokenizer.decode(row, skip_special_tokens=True)
                found[question.kind].append(right(question, text, mode))
        for kind, values in sorted(found.items()):
            print(f"{mode}\t{kind}\t{np.mean(values):.3f}\tn = {len(values)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
