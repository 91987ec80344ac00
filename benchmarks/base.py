"""What a tiny base model can do before it has learned any task: `python -m benchmarks.base [--model DIR] [-n 200]`.

Everyday questions about rendered scenes that it has not seen, half of them of the harder world, `-n` of each kind.
Modes: `tagged` with the system prompt, greedy; `short` and `full` the same after the beginning of a short or a full
thought; `sentence` without the system prompt, the answer somewhere in the text. `p0` is the share of full thoughts
among completions in tagged mode at temperature 1.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geozero.common import process
from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.boxes import iou, parse_box
from geozero.tasks.text import tagged_answer
from geozero.toy.model.build import MERGE, PATCH
from geozero.toy.model.compound import COMPOUND_KINDS, compound_question
from geozero.toy.model.dialogues import OPENINGS, TERSE
from geozero.toy.world.description import GenericQuestion, everyday_question
from geozero.toy.world.scene import Scene, render, sample_scene

FIRST_SCENE = 9_000_000  # far from those that the recipe renders
KINDS = ("presence", "comparison", "count", "land", "scene", "colour", "where", *COMPOUND_KINDS)
MODES = {"tagged": "", "short": f"{TERSE[0]} <answer>", "full": OPENINGS[0], "sentence": ""}  # how completions begin
BATCH = 50
RIGHT_IOU = 0.5
FULL_WORDS = 5  # a thought with more words is no short one


def right(question: GenericQuestion, text: str, mode: str) -> bool:
    """Whether the answer is there: in its tags, or as a word of the sentence; a box by IoU."""
    said = text if mode == "sentence" else tagged_answer(text) or ""
    if question.kind in ("where", "nearest_box"):
        box, truth = parse_box(said), parse_box(question.answer)
        return bool(box and truth and iou(box, truth) >= RIGHT_IOU)
    if mode != "sentence":
        return said == question.answer
    words = said.lower().replace(".", "").replace(",", "").split()
    return question.answer.lower() in words or (" " in question.answer and question.answer in said)


def questions(n: int, kinds: Sequence[str], seed: int) -> list[tuple[Scene, GenericQuestion]]:
    """`n` questions of each kind, every one about a scene of its own."""
    rng, scene_seed = random.Random(seed), FIRST_SCENE
    found: list[tuple[Scene, GenericQuestion]] = []
    for kind in kinds:
        asked = 0
        while asked < n:
            scene = sample_scene(scene_seed, hard=scene_seed % 2 == 1)
            scene_seed += 1
            compound = kind in COMPOUND_KINDS
            question = compound_question(scene, rng, kind) if compound else everyday_question(scene, rng, kind)
            if question is not None and question.kind == kind:
                found.append((scene, question))
                asked += 1
    return found


def complete(
    model: Any, tokenizer: Any, rows: Sequence[tuple[Scene, GenericQuestion]], mode: str, *, sample: bool = False
) -> list[str]:
    """The completions of one batch, with their prefilled beginning."""
    import torch

    from geozero.toy.model import vision

    system = "" if mode == "sentence" else f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
    pixels = np.stack([render(scene) for scene, _ in rows])
    side = pixels.shape[1] // PATCH
    image = f"<|vision_start|>{'<|image_pad|>' * (side // MERGE) ** 2}<|vision_end|>"
    texts = [
        f"{system}<|im_start|>user\n{image}{q.question}<|im_end|>\n<|im_start|>assistant\n{MODES[mode]}"
        for _, q in rows
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    with torch.inference_mode():
        made = model.generate(
            **inputs,
            mm_token_type_ids=(inputs["input_ids"] == pad).int(),
            pixel_values=vision.patches(pixels),
            image_grid_thw=torch.tensor([[1, side, side]] * len(rows)),
            max_new_tokens=96,
            do_sample=sample,
        )
    texts = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [MODES[mode] + text for text in texts]


def main() -> int:
    """Ask and print the share of right answers by mode and kind, then p0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny-qwen3-vl"))
    parser.add_argument("-n", type=int, default=200, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    given, _ = parser.parse_known_args()
    process.prepare()
    import torch
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(given.model, dtype=torch.float32).eval()
    tokenizer: Any = AutoProcessor.from_pretrained(given.model).tokenizer
    tokenizer.padding_side = "left"
    rows = questions(given.n, given.kinds, given.seed)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    print(f"# {given.model}, n = {given.n} of each kind, seed {given.seed}; share right")
    print("\t".join(["kind", *given.modes]))
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for mode in given.modes:
        for batch in batches:
            for (_, question), text in zip(batch, complete(model, tokenizer, batch, mode), strict=True):
                found[question.kind][mode].append(right(question, text, mode))
    for kind, by_mode in found.items():
        print("\t".join([kind, *(f"{np.mean(by_mode[mode]):.3f}" for mode in given.modes)]))
    torch.manual_seed(given.seed)
    sampled = [text for batch in batches for text in complete(model, tokenizer, batch, "tagged", sample=True)]
    thoughts = [text.partition("<answer>")[0] for text in sampled if tagged_answer(text)]
    full = np.mean([len(thought.split()) >= FULL_WORDS for thought in thoughts])
    print(f"# sampled once each at temperature 1, n = {len(sampled)}: p0 {full:.3f}, well formed ", end="")
    print(f"{len(thoughts) / len(sampled):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
