"""The tiny base model: what it is taught, what it must never see, and that its parts are Qwen3-VL's own."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.text import tagged_answer
from geozero.toy.model import pretrain
from geozero.toy.world import layouts
from geozero.toy.world.language import captions, questions_about, referring
from geozero.toy.world.scene import sample_scene

RECIPE = pretrain.PretrainConfig()


def test_pretraining_scenes_lie_in_no_block_of_any_world() -> None:
    last = max(layouts.scene_seed(0, name, "test", 0, hard=True) for name in layouts.SETS)
    seeds = range(pretrain.FIRST_SEED, pretrain.FIRST_SEED + RECIPE.scenes)
    worlds = {seed // layouts.scene_seed(1, "aid", "train", 0) for seed in seeds}
    assert worlds == {0}, "pre-training stays between the blocks of world 0 and the start of world 1"
    samples_end = layouts.scene_seed(0, "samples", "test", layouts._BLOCK - 1, hard=True)
    assert max(last, samples_end) < pretrain.FIRST_SEED


def test_no_question_of_the_evaluation_is_taught() -> None:
    rng = random.Random(0)
    asked: set[str] = set()
    taught: set[str] = set()
    for seed in range(400):
        scene = sample_scene(seed)
        asked |= {question for _, question, _ in questions_about(scene, rng)}
        asked |= {text for _, text in referring(scene, rng)} | set(captions(scene, rng))
        taught.add(pretrain.dialogue(0, scene, RECIPE, rng).user)
    assert not asked & taught


def test_tagged_examples_are_well_formed_and_the_others_carry_no_tag() -> None:
    rng = random.Random(1)
    for seed in range(200):
        example = pretrain.dialogue(0, sample_scene(seed), RECIPE, rng)
        if example.system:
            assert example.system == SYSTEM_PROMPT
            assert tagged_answer(example.assistant)
            assert not example.assistant.startswith("<answer>")
        else:
            assert "<answer>" not in example.assistant


@pytest.mark.slow
def test_patches_are_those_of_the_processor() -> None:
    from geozero.common import process

    process.prepare()
    from PIL import Image

    from geozero.toy.model.build import build_processor
    from geozero.toy.model.vision import patches

    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    processor = build_processor(["a scene"])
    made = processor.image_processor(images=[Image.fromarray(p) for p in pixels], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 12, 12]] * 2
    assert float((patches(pixels) - made["pixel_values"]).abs().max()) < 1e-5


@pytest.mark.slow
def test_a_tiny_recipe_writes_a_checkpoint_that_loads_and_keeps_its_ids(tmp_path: Path) -> None:
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    recipe = pretrain.PretrainConfig(
        scenes=520,
        vision_steps=2,
        counting_steps=2,
        lookup_steps=2,
        lookup_batch=2,
        language_cycles=(2,),
        language_batch=2,
        vision_batch=2,
    )
    out = pretrain.pretrain(tmp_path / "tiny", recipe, log=lambda line: None)
    model = Qwen3VLForConditionalGeneration.from_pretrained(out)
    processor = AutoProcessor.from_pretrained(out)
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert sum(p.numel() for p in model.parameters()) < 1_500_000
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id
