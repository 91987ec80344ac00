"""Pre-training of the tiny base model, so that it can stand for an instruct model: it can describe an image
and it can follow the answer format. It never sees a question of the evaluation or a thought about one.

Stages [ours]: `vision` teaches the image encoder to see (which object, colour and box lies in each cell, which
scene it is, how many of each there are) with heads that are thrown away; `look-up` teaches the text model, without
images, to find in a description what an everyday question asks for; `language` teaches it to describe what the
encoder sees and to answer such questions as `description <answer>…</answer>`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero.common import process
from geozero.sources import SOURCES
from geozero.sources.toy import RENDERED
from geozero.tasks import SYSTEM_PROMPT, TASKS
from geozero.tasks.text import CLOSE_TAG, OPEN_TAG
from geozero.toy.model.build import PATCH, build_model, build_processor, save
from geozero.toy.world.description import GenericQuestion, describe, everyday_question, sentence_answer
from geozero.toy.world.language import captions, questions_about, referring
from geozero.toy.world.scene import SCENE_CLASSES, Scene, render, sample_scene

FIRST_SEED = 5_000_000  # scenes of pre-training; the data sets use other seeds
REPORT_EVERY = 100
BATCHES_SORTED = 16  # drawn together and sorted by length
LOOKUP_KINDS = {
    "comparison": 0.4,
    "presence": 0.25,
    "where": 0.15,
    "count": 0.1,
    "colour": 0.1,
}  # shares
DESCRIBE_PROMPTS = (
    "Describe this picture.",
    "Tell me what you see.",
    "What can be seen from above?",
    "Look and report.",
)


@dataclass(frozen=True)
class PretrainConfig:
    """The length of each stage; measured on one core, see docs/experiments.md."""

    seed: int = 7
    scenes: int = 16_000  # half of them from the harder world
    vision_steps: int = 2_000
    counting_steps: int = 1_000  # the vision stage's second phase
    vision_batch: int = 32
    vision_learning_rate: float = 3e-3
    lookup_steps: int = 900  # text alone
    lookup_batch: int = 64
    language_cycles: tuple[int, ...] = (2_500,)  # steps of each; the learning rate rises and falls in each
    language_batch: int = 32
    language_learning_rate: float = 2e-3
    tagged_share: float = 0.55  # of language examples: system prompt, thought and answer in the format
    sentence_share: float = 0.3  # the same questions without the system prompt, answered by a sentence
    answer_weight: float = 10.0  # thought tokens that a whole answer counts as, however short it is
    relevant_share: float = 0.7  # of tagged examples whose thought holds the facts that the question asks about
    terse_share: float = 0.25  # of tagged examples whose thought is one short sentence


Log = Callable[[str], None]


def pretrain(out: Path, config: PretrainConfig | None = None, log: Log = print) -> Path:
    """Render the scenes, train stage by stage, write a Hugging Face checkpoint to `out`.

    Finished stages are kept in `<out>.stages/` under a key of what made them: a call that was interrupted, or whose
    configuration differs in later stages only, continues from the last stage that is still valid.
    """
    process.prepare()
    import torch
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    from geozero.toy.model.vision import warm_up

    config = config or PretrainConfig()
    scenes, pixels = render_scenes(config.scenes, log)
    processor = build_processor(vocabulary_texts(scenes[:3_000], config.seed))
    model = build_model(processor, config.seed)

    def vision(steps: int, whole: bool) -> None:
        warm_up(
            model.model.visual,
            scenes,
            pixels,
            steps=steps,
            batch=config.vision_batch,
            learning_rate=config.vision_learning_rate,
            seed=config.seed + whole,
            whole=whole,
            log=log,
        )

    def language(cycle: int) -> None:
        steps, seed = config.language_cycles[cycle], config.seed + 1 + cycle
        teach_language(model, processor, scenes, pixels, config, steps, seed, log)

    stages: list[tuple[str, Callable[[], None]]] = [
        ("vision", lambda: vision(config.vision_steps, whole=False)),
        ("counting", lambda: vision(config.counting_steps, whole=True)),
        ("lookup", lambda: teach_lookup(model, processor, scenes, config, log)),
        *((f"language{i}", partial(language, i)) for i in range(len(config.language_cycles))),
    ]
    world = hashlib.sha256(pixels[:64].tobytes()).hexdigest()
    kept = [_stage_directory(out, config, world, name) for name, _ in stages]
    for i, (name, teach) in enumerate(stages):
        if kept[i].is_dir():
            continue
        if i and kept[i - 1].is_dir():
            model = Qwen3VLForConditionalGeneration.from_pretrained(kept[i - 1], dtype=torch.float32)
            processor = AutoProcessor.from_pretrained(kept[i - 1])
            log(f"continuing from {kept[i - 1]}")
        torch.manual_seed(config.seed + i)
        teach()
        _keep(model, processor, kept[i])
        log(f"saved stage {name} to {kept[i]}")
    shutil.copytree(kept[-1], out, dirs_exist_ok=True)
    return out


# The fields that each stage depends on, in addition to those of the stages before it.
_MATTERS = {
    "vision": ("seed", "scenes", "vision_steps", "vision_batch", "vision_learning_rate"),
    "counting": ("counting_steps",),
    "lookup": ("lookup_steps", "lookup_batch", "language_learning_rate", "answer_weight"),
    "language": ("language_batch", "tagged_share", "sentence_share", "relevant_share", "terse_share"),
}


def _stage_directory(out: Path, config: PretrainConfig, world: str, stage: str) -> Path:
    """Where a stage is kept: named by the world, the stage, and the fields that it and earlier stages depend on."""
    kind, cycle = stage.rstrip("0123456789"), stage.lstrip("abcdefghijklmnopqrstuvwxyz")
    before = list(_MATTERS)[: list(_MATTERS).index(kind) + 1]
    values: dict[str, Any] = {name: getattr(config, name) for part in before for name in _MATTERS[part]}
    if cycle:
        values["language_cycles"] = config.language_cycles[: int(cycle) + 1]
    key = hashlib.sha256(json.dumps([world, stage, values]).encode()).hexdigest()[:12]
    return out.with_name(out.name + ".stages") / f"{stage}-{key}"


def _keep(model: Any, processor: Any, directory: Path) -> None:
    """`save` under a temporary name, then rename: a stage directory is always complete."""
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    save(model, processor, part)
    os.replace(part, directory)


def render_scenes(n: int, log: Log) -> tuple[list[Scene], npt.NDArray[np.uint8]]:
    """`n` scenes, every second one hard, and their pixels (n, 96, 96, 3)."""
    scenes = [sample_scene(FIRST_SEED + i, hard=i % 2 == 1) for i in range(n)]
    pixels = np.empty((n, scenes[0].size, scenes[0].size, 3), np.uint8)
    for i, scene in enumerate(scenes):
        pixels[i] = render(scene)
        if (i + 1) % 2_000 == 0:
            log(f"rendered {i + 1} of {n} scenes")
    return scenes, pixels


def vocabulary_texts(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Texts to build the vocabulary from: all words that a model will read and write, no question beside its answer."""
    rng = random.Random(seed)
    texts = [SYSTEM_PROMPT, "<answer>", "</answer>", *DESCRIBE_PROMPTS] * 50
    classes = ", ".join(SCENE_CLASSES.values())
    tasks = [name for name in TASKS if any(name in SOURCES[toy].tasks for toy in RENDERED)]  # what the toy world asks
    for scene in scenes:
        texts.append(describe(scene, rng, rng.random()))
        question = everyday_question(scene, rng)
        texts += [question.question, question.answer, sentence_answer(question, rng)]
        texts += [text for _, text, _ in questions_about(scene, rng)] + captions(scene, rng)
        texts += [expression for _, expression in referring(scene, rng)]
        texts += [TASKS[task].question(str(rng.random()), "", classes.split(", ")) for task in tasks]
    return texts


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One example of the language stage: what the model reads and what it should write about scene `index`."""

    index: int
    system: str
    user: str
    assistant: str


def dialogue(
    index: int, scene: Scene, config: PretrainConfig, rng: random.Random, kinds: Mapping[str, float] | None = None
) -> Dialogue:
    """With the system prompt, an everyday question answered in the format; without it, a sentence or a description.

    `kinds`: shares of the kinds of question; None: those of `everyday_question`.
    """
    draw = rng.random()
    if draw >= config.tagged_share + config.sentence_share:
        return Dialogue(index, "", rng.choice(DESCRIBE_PROMPTS), describe(scene, rng, rng.random()))
    asked = everyday_question(scene, rng, rng.choices(list(kinds), list(kinds.values()))[0] if kinds else None)
    if draw >= config.tagged_share:
        return Dialogue(index, "", asked.question, sentence_answer(asked, rng))
    answer = f"{OPEN_TAG}{asked.answer}{CLOSE_TAG}"
    return Dialogue(index, SYSTEM_PROMPT, asked.question, f"{thought(scene, asked, config, rng)} {answer}")


def thought(scene: Scene, question: GenericQuestion, config: PretrainConfig, rng: random.Random) -> str:
    """A description before the answer: sometimes with the facts that the question asks about, sometimes without."""
    if rng.random() < config.terse_share:
        return rng.choice(question.facts) if rng.random() < config.relevant_share else describe(scene, rng, 0.0)
    description = describe(scene, rng, rng.random() * 0.5)
    if question.kind == "description" or rng.random() >= config.relevant_share:
        return description
    sentences = [s for s in description.split(". ") if s][:2]
    lead = ". ".join(sentences).rstrip(".") + "."
    facts = " ".join(question.facts)
    return f"{lead} {facts}" if rng.random() < 0.7 else f"{facts} {lead}"


def teach_lookup(model: Any, processor: Any, scenes: Sequence[Scene], config: PretrainConfig, log: Log) -> None:
    """Train the text model on dialogues without their images, to write down the facts that a question asks for and to
    answer from them. Without the image it cannot know the numbers, but it can know which kind they are about."""
    rng = random.Random(config.seed)
    facts_only = replace(config, tagged_share=1.0, relevant_share=1.0, terse_share=0.7)
    stream = batches(scenes, facts_only, config.lookup_batch, rng, LOOKUP_KINDS)

    def forward(batch: list[Dialogue]) -> tuple[Any, Any, Any]:
        inputs = collate(batch, processor, 0, config.answer_weight)
        labels, weights = inputs.pop("labels"), inputs.pop("weights")
        return model(**inputs).logits, labels, weights

    weights = [p for name, p in model.named_parameters() if ".visual." not in name]
    title = f"look-up step {{}} of {config.lookup_steps}"
    _train(weights, stream, forward, config.lookup_steps, config, title, log)


def teach_language(
    model: Any,
    processor: Any,
    scenes: Sequence[Scene],
    pixels: npt.NDArray[np.uint8],
    config: PretrainConfig,
    steps: int,
    seed: int,
    log: Log,
) -> None:
    """Train the text model on what the (now fixed) encoder sees; the encoder runs once per scene."""
    import torch
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    from geozero.toy.model.vision import encode

    seen, deep = encode(model.model.visual, pixels, log)
    grid = [1, pixels.shape[1] // PATCH, pixels.shape[2] // PATCH]

    def forward(batch: list[Dialogue]) -> tuple[Any, Any, Any]:
        inputs = collate(batch, processor, seen.shape[1], config.answer_weight)
        labels, weights = inputs.pop("labels"), inputs.pop("weights")
        rows = [d.index for d in batch]
        vision = BaseModelOutputWithDeepstackFeatures(
            pooler_output=list(seen[rows]), deepstack_features=[list(deep[rows])]
        )
        logits = model(
            **inputs, image_grid_thw=torch.tensor([grid] * len(batch)), mm_encoder_outputs={"image": vision}
        ).logits
        return logits, labels, weights

    weights = [p for name, p in model.named_parameters() if ".visual." not in name]
    stream = batches(scenes, config, config.language_batch, random.Random(seed))
    _train(weights, stream, forward, steps, config, f"language step {{}} of {steps}", log)


def _train(
    weights: Sequence[Any],
    stream: Iterator[list[Dialogue]],
    forward: Callable[[list[Dialogue]], tuple[Any, Any, Any]],
    steps: int,
    config: PretrainConfig,
    title: str,
    log: Log,
) -> None:
    """Weighted cross-entropy over the assistant's tokens; reports it for the thoughts and the short answers apart."""
    import torch.nn.functional as F

    from geozero.toy.model.vision import optimisers, take_step

    steppers = optimisers(weights, config.language_learning_rate, steps)
    losses: list[tuple[float, float]] = []
    for step in range(steps):
        logits, labels, weight = forward(next(stream))
        each = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
        weight = weight[:, 1:].flatten()
        ((each * weight).sum() / weight.sum()).backward()
        take_step(weights, steppers)
        answers = weight > 1
        losses.append((each[(weight > 0) & ~answers].mean().item(), each[answers].mean().item()))
        if (step + 1) % REPORT_EVERY == 0:
            thought_loss, answer_loss = np.nanmean(losses[-REPORT_EVERY:], axis=0)  # a batch may hold no answer
            log(f"{title.format(step + 1)}: loss {thought_loss:.3f}, of short answers {answer_loss:.3f}")


def batches(
    scenes: Sequence[Scene],
    config: PretrainConfig,
    size: int,
    rng: random.Random,
    kinds: Mapping[str, float] | None = None,
) -> Iterator[list[Dialogue]]:
    """Endless batches of `size` dialogues of similar length, so that a batch needs little padding."""
    while True:
        rows = rng.choices(range(len(scenes)), k=size * BATCHES_SORTED)
        drawn = [dialogue(i, scenes[i], config, rng, kinds) for i in rows]
        drawn.sort(key=lambda d: len(d.system) + len(d.user) + len(d.assistant))
        parts = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        rng.shuffle(parts)
        yield from parts


def collate(batch: Sequence[Dialogue], processor: Any, image_tokens: int, answer_weight: float) -> dict[str, Any]:
    """Token ids, mask, token types, labels and their weights (the assistant's turn alone) of a padded batch."""
    import torch

    tokenizer = processor.tokenizer
    rows = [_encode(d, tokenizer, image_tokens, answer_weight) for d in batch]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([r + [tokenizer.pad_token_id] * (longest - len(r)) for r, _ in rows])
    weights = torch.tensor([w + [0.0] * (longest - len(w)) for _, w in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r, _ in rows])
    types = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types, "labels": ids, "weights": weights}


def _encode(d: Dialogue, tokenizer: Any, image_tokens: int, answer_weight: float) -> tuple[list[int], list[float]]:
    """Token ids of the dialogue and the weight of each in the loss: 0 up to the assistant's turn."""
    image = "<|vision_start|>" + "<|image_pad|>" * image_tokens + "<|vision_end|>" if image_tokens else ""
    system = f"<|im_start|>system\n{d.system}<|im_end|>\n" if d.system else ""
    prompt = f"{system}<|im_start|>user\n{image}{d.user}<|im_end|>\n<|im_start|>assistant\n"
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(f"{d.assistant}<|im_end|>", add_special_tokens=False, return_offsets_mapping=True)
    start, end = 0, len(d.assistant)  # without tags the whole text is the answer
    if OPEN_TAG in d.assistant:
        start, end = d.assistant.find(OPEN_TAG) + len(OPEN_TAG), d.assistant.find(CLOSE_TAG)
    inside = [start <= offset < end for offset, _ in after["offset_mapping"]]
    weight = max(1.0, answer_weight / max(1, sum(inside)))
    return before + after["input_ids"], [0.0] * len(before) + [weight if i else 1.0 for i in inside]
