"""Pre-training of the tiny base model, so that it plays the part of an instruct model: it can describe a picture
and it can follow the answer format. It never sees a question of the evaluation, nor a thought about one.

Two stages [ours]: `vision` teaches the picture encoder to see (which object, colour and box lies in each cell,
which scene it is) with heads that are thrown away; `language` teaches the text model to describe what the encoder
sees and to answer reworded everyday questions as `description <answer>…</answer>`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero import process
from geozero.tasks import SYSTEM_PROMPT, TASKS
from geozero.toy.description import GenericQuestion, describe, generic_question
from geozero.toy.language import captions, referring, vqa
from geozero.toy.model import PATCH, build_model, build_processor, save
from geozero.toy.world import SCENE_CLASSES, Scene, render, sample_scene

FIRST_SEED = 5_000_000  # scenes of pre-training; the data sets' seeds lie elsewhere
DESCRIBE_PROMPTS = (
    "Describe this picture.",
    "Tell me what you see.",
    "What can be seen from above?",
    "Look and report.",
)


@dataclass(frozen=True)
class Recipe:
    """How long each stage is; measured on one core, see docs/experiments.md."""

    seed: int = 7
    scenes: int = 8_000  # half of them from the harder world
    vision_steps: int = 2_000
    vision_batch: int = 32
    vision_learning_rate: float = 3e-3
    language_steps: int = 1_600
    language_batch: int = 32
    language_learning_rate: float = 2e-3
    tagged_share: float = 0.7  # of language examples; the rest are free descriptions without the format
    relevant_share: float = 0.5  # of tagged examples whose thought holds the facts that the question asks about
    terse_share: float = 0.25  # of tagged examples whose thought is one short sentence


Progress = Callable[[str], None]


def pretrain(out: Path, recipe: Recipe | None = None, progress: Progress = print) -> Path:
    """Render the scenes, train both stages, write a Hugging Face checkpoint to `out`."""
    process.prepare()
    import torch

    from geozero.toy.vision import warm_up

    recipe = recipe or Recipe()
    torch.manual_seed(recipe.seed)
    scenes, pixels = render_scenes(recipe.scenes, progress)
    processor = build_processor(vocabulary_texts(scenes[:3_000], recipe.seed))
    model = build_model(processor, recipe.seed)
    warm_up(
        model.model.visual,
        scenes,
        pixels,
        steps=recipe.vision_steps,
        batch=recipe.vision_batch,
        learning_rate=recipe.vision_learning_rate,
        seed=recipe.seed,
        progress=progress,
    )
    teach_language(model, processor, scenes, pixels, recipe, progress)
    save(model, processor, out)
    return out


def render_scenes(n: int, progress: Progress) -> tuple[list[Scene], npt.NDArray[np.uint8]]:
    """`n` scenes, every second one hard, and their pixels (n, 96, 96, 3)."""
    scenes = [sample_scene(FIRST_SEED + i, hard=i % 2 == 1) for i in range(n)]
    pixels = np.empty((n, scenes[0].size, scenes[0].size, 3), np.uint8)
    for i, scene in enumerate(scenes):
        pixels[i] = render(scene)
        if (i + 1) % 2_000 == 0:
            progress(f"rendered {i + 1} of {n} scenes")
    return scenes, pixels


def vocabulary_texts(scenes: Sequence[Scene], seed: int) -> list[str]:
    """What the vocabulary is made from: the words that a model will read and write, no question beside its answer."""
    rng = random.Random(seed)
    texts = [SYSTEM_PROMPT, "<answer>", "</answer>", *DESCRIBE_PROMPTS] * 50
    classes = ", ".join(SCENE_CLASSES.values())
    for scene in scenes:
        texts.append(describe(scene, rng, rng.random()))
        question = generic_question(scene, rng)
        texts += [question.question, question.answer]
        texts += [text for _, text, _ in vqa(scene, rng)] + captions(scene, rng)
        texts += [expression for _, expression in referring(scene, rng)]
        for task in TASKS.values():
            texts.append(task.question(str(rng.random()), "", classes.split(", ")))
    return texts


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One example of the language stage: what the model reads and what it should write about scene `index`."""

    index: int
    system: str
    user: str
    assistant: str


def dialogue(index: int, scene: Scene, recipe: Recipe, rng: random.Random) -> Dialogue:
    """An everyday question answered in the format, or a free description without it."""
    if rng.random() >= recipe.tagged_share:
        return Dialogue(index, "", rng.choice(DESCRIBE_PROMPTS), describe(scene, rng, rng.random()))
    question = generic_question(scene, rng)
    return Dialogue(
        index,
        SYSTEM_PROMPT,
        question.question,
        f"{thought(scene, question, recipe, rng)} <answer>{question.answer}</answer>",
    )


def thought(scene: Scene, question: GenericQuestion, recipe: Recipe, rng: random.Random) -> str:
    """A description before the answer: at times with the facts the question asks about, at times without them."""
    if rng.random() < recipe.terse_share:
        return rng.choice(question.facts) if rng.random() < recipe.relevant_share else describe(scene, rng, 0.0)
    description = describe(scene, rng, rng.random() * 0.5)
    if question.kind == "caption" or rng.random() >= recipe.relevant_share:
        return description
    sentences = [s for s in description.split(". ") if s][:2]
    lead = ". ".join(sentences).rstrip(".") + "."
    facts = " ".join(question.facts)
    return f"{lead} {facts}" if rng.random() < 0.7 else f"{facts} {lead}"


def teach_language(
    model: Any,
    processor: Any,
    scenes: Sequence[Scene],
    pixels: npt.NDArray[np.uint8],
    recipe: Recipe,
    progress: Progress,
) -> None:
    """Train the text model on what the (now fixed) encoder sees; the encoder runs once a scene."""
    import torch
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    from geozero.toy.vision import encode, optimisers

    seen, deep = encode(model.model.visual, pixels, progress)
    model.model.visual.requires_grad_(False)
    weights = [p for p in model.parameters() if p.requires_grad]
    steppers = optimisers(weights, recipe.language_learning_rate, recipe.language_steps)
    rng = random.Random(recipe.seed)
    tokens = seen.shape[1]
    losses: list[float] = []
    for step in range(recipe.language_steps):
        batch = [dialogue(i, scenes[i], recipe, rng) for i in rng.choices(range(len(scenes)), k=recipe.language_batch)]
        inputs = collate(batch, processor, tokens)
        rows = [d.index for d in batch]
        vision = BaseModelOutputWithDeepstackFeatures(
            pooler_output=list(seen[rows]), deepstack_features=[list(deep[rows])]
        )
        grid = torch.tensor([[1, pixels.shape[1] // PATCH, pixels.shape[2] // PATCH]] * len(batch))
        loss = model(**inputs, image_grid_thw=grid, mm_encoder_outputs={"image": vision}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimiser, schedule in steppers:
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            progress(f"language step {step + 1} of {recipe.language_steps}: loss {np.mean(losses[-100:]):.3f}")
    model.model.visual.requires_grad_(True)


def collate(batch: Sequence[Dialogue], processor: Any, image_tokens: int) -> dict[str, Any]:
    """Token ids, mask, token types and labels (the assistant's turn alone) of a padded batch."""
    import torch

    tokenizer = processor.tokenizer
    pad, ignore = tokenizer.pad_token_id, -100
    rows: list[tuple[list[int], list[int]]] = [_encode(d, tokenizer, image_tokens) for d in batch]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([r + [pad] * (longest - len(r)) for r, _ in rows])
    labels = torch.tensor([r + [ignore] * (longest - len(r)) for _, r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r, _ in rows])
    types = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types, "labels": labels}


def _encode(d: Dialogue, tokenizer: Any, image_tokens: int) -> tuple[list[int], list[int]]:
    image = "<|vision_start|>" + "<|image_pad|>" * image_tokens + "<|vision_end|>"
    system = f"<|im_start|>system\n{d.system}<|im_end|>\n" if d.system else ""
    prompt = f"{system}<|im_start|>user\n{image}{d.user}<|im_end|>\n<|im_start|>assistant\n"
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(f"{d.assistant}<|im_end|>", add_special_tokens=False)["input_ids"]
    return before + after, [-100] * len(before) + after
