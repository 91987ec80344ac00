"""The tiny base model: what it is taught, what it must never see, and that its parts are Qwen3-VL's own."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.text import tagged_answer
from geozero.toy.model import optimization, pretrain, text
from geozero.toy.model.dialogues import OPENINGS, TERSE, Dialogue, Mix, dialogue
from geozero.toy.model.vision import digits, patches, read_out, targets, turned
from geozero.toy.world import layouts
from geozero.toy.world.description import coordinates
from geozero.toy.world.language import captions, questions_about, referring
from geozero.toy.world.scene import Scene, render, sample_scene
from geozero.toy.world.suite import EXPRESSIONS, QUESTIONS

RECIPE = pretrain.PretrainConfig()


def test_pretraining_scenes_lie_in_no_block_of_any_world() -> None:
    last = max(layouts.scene_seed(0, name, "test", 0, hard=True) for name in layouts.SETS)
    seeds = range(pretrain.FIRST_SEED, pretrain.FIRST_SEED + RECIPE.scenes)
    worlds = {seed // layouts.scene_seed(1, "aid", "train", 0) for seed in seeds}
    assert worlds == {0}, "pre-training stays between the blocks of world 0 and the start of world 1"
    samples_end = layouts.scene_seed(0, "samples", "test", layouts._BLOCK - 1, hard=True)
    assert max(last, samples_end) < pretrain.FIRST_SEED


def suite_texts(scene: Scene) -> set[str]:
    return {c.text for kind in (*QUESTIONS.values(), *EXPRESSIONS.values()) for c in kind.candidates(scene)}


def test_no_question_of_the_evaluation_is_taught() -> None:
    rng = random.Random(0)
    asked: set[str] = set()
    taught: set[str] = set()
    for seed in range(400):
        scene = sample_scene(seed)
        asked |= {question for _, question, _ in questions_about(scene, rng)}
        asked |= {text for _, text in referring(scene, rng)} | set(captions(scene, rng)) | suite_texts(scene)
        taught |= {dialogue(scene, Mix(), rng, tagged).user for tagged in (True, False)}
    assert not asked & taught


def test_tagged_examples_are_well_formed_and_the_others_carry_no_tag() -> None:
    rng = random.Random(1)
    for seed in range(200):
        example = dialogue(sample_scene(seed), Mix(), rng, tagged=True)
        assert example.system == SYSTEM_PROMPT
        assert tagged_answer(example.assistant)
        assert not example.assistant.startswith("<answer>")
        assert "<answer>" not in dialogue(sample_scene(seed), Mix(), rng, tagged=False).assistant


@pytest.mark.parametrize("terse", [0.0, 0.9, 1.0])
def test_the_share_of_terse_thoughts_is_the_recipe_s(terse: float) -> None:
    rng = random.Random(2)
    thoughts = []
    for seed in range(300):
        example = dialogue(sample_scene(seed), Mix(terse=terse), rng, tagged=True)
        thoughts.append(example.assistant.partition("<answer>")[0].strip())
    short = [thought in TERSE for thought in thoughts]
    assert abs(sum(short) / 300 - terse) < 0.06
    full = [thought for thought, is_short in zip(thoughts, short, strict=True) if not is_short]
    assert all(thought.startswith(OPENINGS) and len(thought.split()) >= 5 for thought in full)
    assert 0.05 <= 1 - RECIPE.habit.mix.terse <= 0.15


def test_a_later_stage_s_settings_leave_the_keys_of_earlier_ones() -> None:
    keys = pretrain._keys(RECIPE, "world")
    first, *more = RECIPE.language
    other = pretrain._keys(replace(RECIPE, language=(replace(first, steps=1), *more)), "world")
    assert [name for name in keys if keys[name] == other[name]] == ["vision", "lookup"]
    longer = pretrain._keys(replace(RECIPE, language=(first, *more, first)), "world")
    assert [name for name in keys if keys[name] != longer[name]] == ["habit"]
    assert not set(keys.values()) & set(pretrain._keys(replace(RECIPE, seed=8), "world").values())


def test_turned_boxes_stay_on_their_objects() -> None:
    """Each object is painted white, its box must hold the paint after every symmetry."""
    scenes = [sample_scene(seed) for seed in range(8)]
    truth = targets(scenes)
    pixels = np.zeros((len(scenes), 96, 96, 3), np.uint8)
    for i, scene in enumerate(scenes):
        for item in scene.objects:
            x1, y1, x2, y2 = (round(v) for v in item.box)
            pixels[i, y1:y2, x1:x2] = 255
    for seed in range(24):
        x, cells = turned(pixels, truth.cells, np.arange(len(scenes)), np.random.default_rng(seed))
        painted = np.zeros(x.shape[:3], bool)
        for i in range(len(scenes)):
            for cell in np.flatnonzero(cells["kind"][i].numpy()):
                x1, y1, x2, y2 = (round(float(v) * 96) for v in cells["box"][i, cell])
                assert x[i, y1:y2, x1:x2].all()
                assert y1 // 16 <= cell // 6 <= y2 // 16 and x1 // 16 <= cell % 6 <= x2 // 16
                painted[i, y1:y2, x1:x2] = True
        assert (painted == (x[..., 0] > 0)).mean() > 0.999


def test_digits_are_those_of_the_written_coordinates() -> None:
    import torch

    box = torch.tensor([[0.0412, 0.5, 0.9996, 0.256]])
    assert digits(box).tolist() == [[[0, 4], [5, 0], [9, 9], [2, 5]]]


@pytest.mark.slow
def test_patches_are_those_of_the_processor() -> None:
    from geozero.common import process

    process.prepare()
    from PIL import Image

    from geozero.toy.model.build import build_processor

    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    processor = build_processor(["a scene"])
    made = processor.image_processor(images=[Image.fromarray(p) for p in pixels], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 12, 12]] * 2
    assert float((patches(pixels) - made["pixel_values"]).abs().max()) < 1e-5


@pytest.mark.slow
def test_a_row_trains_what_its_dialogues_would_train_one_by_one() -> None:
    import torch

    model, processor, pixels = small_model()
    rng = random.Random(3)
    scene = sample_scene(1)
    seen, deep = read_out(model.model.visual, pixels[1:2])
    row = text.fill_row(
        0, SYSTEM_PROMPT, processor.tokenizer, 36, 300, 10.0, {}, lambda: dialogue(scene, Mix(), rng, tagged=True)
    )
    assert len(row.pieces) > 2
    batch = text.collate([row], model.config.image_token_id, processor.tokenizer.pad_token_id)
    with torch.no_grad():
        packed = model.lm_head(text.hidden_states(model, batch, seen, deep))[0, len(row.prompt) :]
        for piece in row.pieces:
            alone = torch.tensor([row.prompt + piece.ids])
            single = model(
                input_ids=alone,
                mm_token_type_ids=(alone == model.config.image_token_id).int(),
                pixel_values=patches(pixels[1:2]),
                image_grid_thw=torch.tensor([[1, 12, 12]]),
            ).logits[0, len(row.prompt) :]
            assert float((single - packed[: len(piece.ids)]).abs().max()) < 1e-4
            assert piece.weights[0] == 0 and piece.weights[-1] > 0
            packed = packed[len(piece.ids) :]


@pytest.mark.slow
def test_guided_heads_are_drawn_to_the_object_whose_box_is_written() -> None:
    import torch

    model, processor, pixels = small_model()
    scene = sample_scene(1)
    boxes = text.shown_at(scene, 36)
    assert len(boxes) == len(scene.objects)
    item = max(scene.objects, key=lambda o: o.box[2] - o.box[0])
    box = coordinates(item, scene)
    x, y = (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2
    assert boxes[box] == int(y // 16) * 6 + int(x // 16)
    row = text.Row(0, text.prompt_ids(SYSTEM_PROMPT, processor.tokenizer, 36), [])
    said = Dialogue(SYSTEM_PROMPT, "Mark it.", f"Here you are. <answer>{box}</answer>")
    row.pieces.append(text.encode(said, processor.tokenizer, 10.0, boxes))
    numbers = box.strip("[]").split(", ")
    guided = [i for i, cell in enumerate(row.pieces[0].cells) if cell >= 0]
    written = [processor.tokenizer.decode([row.pieces[0].ids[i]]) for i in guided]
    assert written == [digit for number in numbers for digit in number[:2]]
    assert {row.pieces[0].cells[i] for i in guided} == {boxes[box]}

    batch = text.collate([row], model.config.image_token_id, processor.tokenizer.pad_token_id)
    attention, read = model.model.language_model.layers[text.GUIDED_LAYER].self_attn, dict[str, Any]()
    attention.register_forward_pre_hook(lambda _, __, given: read.update(given), with_kwargs=True)
    model.set_attn_implementation("eager")
    weights: list[Any] = []
    attention.register_forward_hook(lambda _, __, out: weights.append(out[1]))
    with torch.no_grad():
        text.hidden_states(model, batch, *read_out(model.model.visual, pixels[1:2]))
        loss = text.attention_loss(attention, read, batch, model.config.image_token_id)
    at = torch.tensor(guided) + len(row.prompt) - 1
    target = row.prompt.index(model.config.image_token_id) + boxes[box]
    own = torch.stack([weights[0][0, head, at, target] for head in text.GUIDED_HEADS])
    assert float(loss) == pytest.approx(float(-own.log().mean()), abs=1e-4)


def small_model() -> tuple[Any, Any, np.ndarray[Any, Any]]:
    from geozero.common import process

    process.prepare()
    from geozero.toy.model.build import build_model, build_processor

    scenes = [sample_scene(seed) for seed in range(2)]
    processor = build_processor(pretrain.vocabulary_texts(scenes, 0))
    return build_model(processor, 0), processor, np.stack([render(scene) for scene in scenes])


@pytest.mark.slow
def test_training_that_was_killed_reaches_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(optimization, "SAVE_EVERY", 2)

    def train(die_at: int | None, start: Path | None) -> Any:
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 4)
        weights = list(module.parameters())

        def loss_of(step: int) -> Any:
            if step == die_at:
                raise KeyboardInterrupt
            x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
            return (module(x) - 1).pow(2).mean()

        steppers = optimization.optimisers(weights, 1e-2, 7)
        optimization.train_resumably(module, weights, steppers, 7, loss_of, start, lambda line: None)
        return module.weight.detach()

    kept = tmp_path / "stage.progress"
    with pytest.raises(KeyboardInterrupt):
        train(5, kept)
    assert kept.is_file()
    assert torch.equal(train(None, kept), train(None, None))
    assert not kept.exists()


@pytest.mark.slow
def test_a_tiny_recipe_writes_a_checkpoint_that_loads_and_keeps_its_ids(tmp_path: Path) -> None:
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    stage = pretrain.TextStage(2, 1e-3, Mix(), rows=2, tokens=100)
    recipe = pretrain.PretrainConfig(
        scenes=520, vision_steps=2, vision_batch=2, lookup=stage, language=(stage,), habit=stage
    )
    out = pretrain.pretrain(tmp_path / "tiny", recipe, log=lambda line: None)
    model = Qwen3VLForConditionalGeneration.from_pretrained(out)
    processor = AutoProcessor.from_pretrained(out)
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert sum(p.numel() * 4 for p in model.parameters()) < 20_000_000
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id
    again: list[str] = []
    pretrain.pretrain(tmp_path / "tiny", recipe, log=again.append)
    assert not again, "finished stages are not trained again"
