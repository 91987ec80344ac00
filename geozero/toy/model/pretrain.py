"""Pre-training of the tiny base model, so that it can stand for an instruct model: it can describe an image
and it can follow the answer format. It never sees a question of the evaluation or a thought about one.

Stages [ours]: `vision` teaches the image encoder to see, with heads that are thrown away; `lookup` teaches the text
model, without images, to derive an answer from facts; `language` teaches it to write down what the encoder sees, to
point at it and to answer, mostly after a full thought; `habit` sets how often it thinks by itself. `dialogues` says
what is read and written, `text` how a batch is made of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero.common import process
from geozero.sources import SOURCES
from geozero.sources.toy import RENDERED
from geozero.tasks import SYSTEM_PROMPT, TASKS
from geozero.toy.model import text
from geozero.toy.model.build import build_model, build_processor, build_visual, save
from geozero.toy.model.compound import COMPOUND_KINDS, compound_question
from geozero.toy.model.dialogues import DESCRIBE_PROMPTS, INVENTORY_PROMPTS, KINDS, OPENINGS, TERSE, Mix, dialogue
from geozero.toy.world.description import describe, everyday_question, inventory, sentence_answer
from geozero.toy.world.language import captions, questions_about, referring
from geozero.toy.world.scene import SCENE_CLASSES, Scene, render, sample_scene
from geozero.toy.world.suite import EXPRESSIONS, QUESTIONS

FIRST_SEED = 5_000_000  # scenes of pre-training; the data sets use other seeds
LOOKUP_KINDS = {kind: share for kind, share in KINDS.items() if kind not in ("scene", "land", "description")} | {
    "where": 0.1  # without the image, coordinates can be copied but not known
}

Log = Callable[[str], None]


@dataclass(frozen=True)
class TextStage:
    """Length and mix of a text stage: `rows` rows of about `tokens` tokens per step."""

    steps: int
    learning_rate: float
    mix: Mix
    rows: int = 8
    tokens: int = 280


@dataclass(frozen=True)
class PretrainConfig:
    """What each stage trains on and for how long; docs/experiments.md has the measurements."""

    seed: int = 7
    scenes: int = 20_000  # half of them from the harder world
    vision_steps: int = 2_600
    vision_batch: int = 32
    vision_learning_rate: float = 3e-3
    answer_weight: float = 10.0  # tokens of a thought that a whole answer counts as, however short it is
    lookup: TextStage = field(default_factory=lambda: TextStage(300, 2e-3, Mix(tagged=1.0, terse=0.0, relevant=1.0)))
    # one or more; the learning rate rises and falls in each, so that more can be added to a finished model's
    language: tuple[TextStage, ...] = (TextStage(1_000, 2e-3, Mix()), TextStage(4_000, 2e-3, Mix()))
    habit: TextStage = field(default_factory=lambda: TextStage(150, 5e-4, Mix(tagged=0.75, terse=0.9)))

    def text_stages(self) -> dict[str, TextStage]:
        """Name -> stage, in order: lookup, language0, language1, …, habit."""
        cycles = {f"language{i}": stage for i, stage in enumerate(self.language)}
        return {"lookup": self.lookup, **cycles, "habit": self.habit}


def pretrain(out: Path, config: PretrainConfig | None = None, log: Log = print) -> Path:
    """Render the scenes, train stage by stage, write a Hugging Face checkpoint to `out`.

    Finished stages, and every few minutes the progress of the running one, are kept in `<out>.stages/` under a key of
    what made them: a call that was interrupted, or whose configuration differs in later stages only, continues there.
    """
    process.prepare()
    import torch
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    config = config or PretrainConfig()
    stages = out.with_name(out.name + ".stages")
    stages.mkdir(parents=True, exist_ok=True)
    scenes, pixels, world = render_scenes(config.scenes, stages, log)
    kept = {name: stages / f"{name}-{key}" for name, key in _keys(config, world).items()}
    visual = _vision_stage(config, scenes, pixels, kept["vision"], log)
    processor = build_processor(vocabulary_texts(scenes[:3_000], config.seed))
    model = build_model(processor, config.seed)
    model.model.visual.load_state_dict(visual)
    before = kept["vision"]
    for i, (name, stage) in enumerate(config.text_stages().items(), start=1):
        if not kept[name].is_dir():
            if name != "lookup":
                model = Qwen3VLForConditionalGeneration.from_pretrained(before, dtype=torch.float32)
                processor = AutoProcessor.from_pretrained(before)
            torch.manual_seed(config.seed + i)
            seen = name != "lookup"
            _text_stage(name, stage, model, processor, scenes, pixels if seen else None, config, kept[name], log)
            _keep(lambda part, m=model, p=processor: save(m, p, part), kept[name])  # type: ignore[misc]
            log(f"saved stage {name} to {kept[name]}")
        before = kept[name]
    shutil.copytree(before, out, dirs_exist_ok=True)
    return out


def _keys(config: PretrainConfig, world: str) -> dict[str, str]:
    """Stage -> a hash of the world and of the fields that it and earlier stages depend on."""
    values = [config.seed, config.scenes, config.vision_steps, config.vision_batch, config.vision_learning_rate]
    made: list[Any] = [world, *values]
    keys = {"vision": _digest(made)}
    for name, stage in config.text_stages().items():
        made = [*made, name, config.answer_weight, asdict(stage)]
        keys[name] = _digest(made)
    return keys


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _keep(write: Callable[[Path], None], directory: Path) -> None:
    """`write` to a temporary name, then rename: a stage directory is always complete."""
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    os.replace(part, directory)


def _progress(directory: Path) -> Path:
    return directory.with_name(directory.name + ".progress")


def _vision_stage(
    config: PretrainConfig, scenes: Sequence[Scene], pixels: npt.NDArray[np.uint8], directory: Path, log: Log
) -> Any:
    """The weights of the trained encoder."""
    import torch
    from safetensors.torch import load_file, save_file

    from geozero.toy.model.build import vision_config
    from geozero.toy.model.vision import warm_up

    if not directory.is_dir():
        visual = build_visual(vision_config(), config.seed)
        torch.manual_seed(config.seed)
        warm_up(
            visual,
            scenes,
            pixels,
            steps=config.vision_steps,
            batch=config.vision_batch,
            learning_rate=config.vision_learning_rate,
            seed=config.seed,
            checkpoint=_progress(directory),
            log=log,
        )
        _keep(lambda part: save_file(visual.state_dict(), part / "visual.safetensors"), directory)
        log(f"saved stage vision to {directory}")
    return load_file(directory / "visual.safetensors")


def _text_stage(
    name: str,
    stage: TextStage,
    model: Any,
    processor: Any,
    scenes: Sequence[Scene],
    pixels: npt.NDArray[np.uint8] | None,
    config: PretrainConfig,
    directory: Path,
    log: Log,
) -> None:
    """Train the text model on a stage's mix; the encoder is fixed and runs once per scene. No `pixels`: text alone.

    Without the image the model cannot know the numbers, but it can know which kind they are about, and what follows.
    """
    from geozero.toy.model.vision import encode

    kinds: Mapping[str, float] = KINDS if pixels is not None else LOOKUP_KINDS
    seen, deep = (None, None) if pixels is None else encode(model.model.visual, pixels, log)
    image_tokens = 0 if seen is None else seen.shape[1]

    def rows_of(step: int) -> list[text.Row]:
        rng = random.Random(f"{config.seed}/{name}/{step}")
        rows = []
        for _ in range(stage.rows):
            index, tagged = rng.randrange(len(scenes)), rng.random() < stage.mix.tagged
            row = text.fill_row(
                index,
                SYSTEM_PROMPT if tagged else "",
                processor.tokenizer,
                image_tokens,
                stage.tokens,
                config.answer_weight,
                text.shown_at(scenes[index], image_tokens) if image_tokens else {},
                lambda scene=scenes[index], tagged=tagged: dialogue(scene, stage.mix, rng, tagged, kinds),  # type: ignore[misc]
            )
            rows.append(row)
        return rows

    text.teach(
        model,
        rows_of,
        seen,
        deep,
        steps=stage.steps,
        learning_rate=stage.learning_rate,
        title=name,
        checkpoint=_progress(directory),
        log=log,
    )


def render_scenes(n: int, keep: Path, log: Log) -> tuple[list[Scene], npt.NDArray[np.uint8], str]:
    """`n` scenes, every second one hard, their pixels (n, 96, 96, 3), a file in `keep`, and the world's hash."""
    scenes = [sample_scene(FIRST_SEED + i, hard=i % 2 == 1) for i in range(n)]
    world = hashlib.sha256(np.stack([render(scene) for scene in scenes[:64]]).tobytes()).hexdigest()
    file = keep / f"pixels-{n}-{world[:12]}.npy"
    if not file.is_file():
        pixels = np.empty((n, scenes[0].size, scenes[0].size, 3), np.uint8)
        for i, scene in enumerate(scenes):
            pixels[i] = render(scene)
            if (i + 1) % 2_000 == 0:
                log(f"rendered {i + 1} of {n} scenes")
        part = file.with_suffix(".part.npy")
        np.save(part, pixels)
        os.replace(part, file)
    return scenes, np.load(file, mmap_mode="r"), world


def vocabulary_texts(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Texts to build the vocabulary from: all words that a model will read and write, no question beside its answer."""
    rng = random.Random(seed)
    texts = [SYSTEM_PROMPT, "<answer>", "</answer>", *DESCRIBE_PROMPTS, *INVENTORY_PROMPTS, *TERSE, *OPENINGS] * 50
    classes = ", ".join(SCENE_CLASSES.values())
    tasks = [name for name in TASKS if any(name in SOURCES[toy].tasks for toy in RENDERED)]  # what the toy world asks
    for scene in scenes:
        texts += [describe(scene, rng, rng.random()), inventory(scene, rng)]
        for question in (everyday_question(scene, rng), compound_question(scene, rng, rng.choice(COMPOUND_KINDS))):
            if question is not None:
                texts += [question.question, question.answer, sentence_answer(question, rng), *question.facts]
        texts += [text for _, text, _ in questions_about(scene, rng)] + captions(scene, rng)
        texts += [expression for _, expression in referring(scene, rng)]
        suite = [list(kind.candidates(scene)) for kind in (*QUESTIONS.values(), *EXPRESSIONS.values())]
        texts += [rng.choice(candidates).text for candidates in suite if candidates]
        texts += [TASKS[task].question(str(rng.random()), "", classes.split(", ")) for task in tasks]
    return texts
