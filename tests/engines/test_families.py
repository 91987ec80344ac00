"""Model families: which adapter a checkpoint gets, its image limits, and that everybody fits an image alike."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from weights import write_weights

from geozero.common import process
from geozero.common.errors import BadRecord, InputError
from geozero.difficulty.settings import SamplingSettings
from geozero.engines import families
from geozero.engines.families import FAMILIES, family_at, family_for, family_of
from geozero.engines.families.base import MIN_PIXELS
from geozero.engines.families.qwen_vl import MAX_RATIO, GridLimits
from geozero.params import Model

PUBLISHED = {  # what the published checkpoints' own files say
    "qwen3_vl": {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}, "patch_size": 16, "merge_size": 2},
    "qwen2_5_vl": {"min_pixels": 3_136, "max_pixels": 12_845_056, "patch_size": 14, "merge_size": 2},
}


def checkpoint(path: Path, model_type: str = "qwen3_vl", nested: bool = False) -> Path:
    """The files of a checkpoint that say how it wants its images."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    values = PUBLISHED[model_type]
    name = "processor_config.json" if nested else "preprocessor_config.json"
    (path / name).write_text(json.dumps({"image_processor": values} if nested else values))
    return path


# -- which adapter -----------------------------------------------------------------------------------------------


def test_an_unknown_model_type_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    for ask in (lambda: family_of("internvl"), lambda: family_at(tmp_path)):
        with pytest.raises(InputError, match=r"no adapter for the model type 'internvl'.*qwen3_vl") as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no adapter"):
        family_for(Model(path="x", model_type="internvl"))


def test_what_does_not_suit_the_family_is_refused() -> None:
    model = partial(Model, path="x", model_type="qwen2_5_vl")
    with pytest.raises(InputError, match="template 'qwen3_vl' is not for qwen2_5_vl"):
        family_for(model(boxes="pixels"))
    with pytest.raises(InputError, match=r"model\.boxes is not set.*resized28, not norm1000"):
        family_for(model(template="qwen2_5_vl"))
    assert family_for(model(template="qwen2_5_vl", boxes="pixels")).model_type == "qwen2_5_vl"
    assert family_for(model(template="geozero_qwen2_5_vl", boxes="norm1000")).boxes == "resized28"
    assert family_for(Model(path="x")) is FAMILIES["qwen3_vl"]


def test_boxes_mean_what_the_family_is_pre_trained_with(tmp_path: Path) -> None:
    models = [checkpoint(tmp_path / kind, kind) for kind in ("qwen3_vl", "qwen2_5_vl")]
    for model in models:
        write_weights(model / "model.safetensors", b"weights")
    assert [families.default_boxes(model) for model in models] == ["norm1000", "resized28"]
    with pytest.raises(InputError, match="writes boxes as resized28, not as norm1000"):
        SamplingSettings().models([model])
    (found,) = SamplingSettings(boxes="pixels").models([model])[1]
    assert (found.boxes, found.min_pixels) == ("pixels", None)  # 3,136 pixels are four tokens, as ever


# -- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("model_type", "least", "factor"), [("qwen3_vl", 65_536, 32), ("qwen2_5_vl", 3_136, 28)])
def test_limits_are_the_checkpoints_own_within_those_given(
    tmp_path: Path, model_type: str, least: int, factor: int, nested: bool
) -> None:
    family = family_at(checkpoint(tmp_path, model_type, nested))
    assert family.limits(tmp_path, 802_816) == GridLimits(least, 802_816, factor)
    assert family.limits(tmp_path, 1 << 40).max_pixels in (16_777_216, 12_845_056)
    assert family.limits(tmp_path, 802_816, 5_000).min_pixels == 5_000
    assert family.limits(tmp_path, 8_192).min_pixels == min(least, 2_048)
    with pytest.raises(InputError, match="more than a quarter"):
        family.limits(tmp_path, 8_192, 4_096)
    with pytest.raises(InputError, match="less than one token"):
        family.limits(tmp_path, 500)


def test_a_checkpoint_without_a_processor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(InputError, match=r"no preprocessor_config\.json"):
        family_at(tmp_path).limits(tmp_path, 802_816)
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 448}')
    with pytest.raises(InputError, match="no Qwen-VL image processor"):
        family_at(tmp_path).limits(tmp_path, 802_816)


@pytest.mark.parametrize("model_type", PUBLISHED)
@pytest.mark.parametrize("nested", [False, True])
def test_written_limits_are_read_again(tmp_path: Path, model_type: str, nested: bool) -> None:
    family = family_at(checkpoint(tmp_path, model_type, nested))
    limits = family.limits(tmp_path, 802_816, 10_000)
    family.write_limits(tmp_path, limits)
    assert family.limits(tmp_path, 1 << 40) == limits


def test_answers_made_before_there_was_a_minimum_keep_their_fingerprint(tmp_path: Path) -> None:
    demo = Path(__file__).resolve().parents[2] / "models/tiny-qwen3-vl"
    assert family_at(demo).limits(demo, 16_384) == GridLimits(4 * 16**2, 16_384, 16)
    assert families.recorded_min_pixels(demo, 16_384, None) is None
    assert families.recorded_min_pixels(demo, 16_384, 4_096) == 4_096
    assert families.recorded_min_pixels(checkpoint(tmp_path / "a"), 802_816, None) == 65_536
    assert families.recorded_min_pixels(checkpoint(tmp_path / "b", "qwen2_5_vl"), 802_816, None) is None


def test_an_image_that_is_too_thin_is_refused() -> None:
    limits = GridLimits(65_536, 802_816, 32)
    limits.check(8_000, 8_000 // MAX_RATIO)
    with pytest.raises(BadRecord, match="image_too_thin: 8000x79"):
        limits.check(8_000, 79)
    few = GridLimits(1_024, 16_384, 16)  # 64 tokens: one row of them is 64 times as long as high
    few.check(1, 64)
    with pytest.raises(BadRecord, match="image_too_thin"):
        few.check(1, 65)


# -- towers ------------------------------------------------------------------------------------------------------


def test_a_tower_of_an_unknown_class_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Other:
        def modules(self) -> list[Any]:
            return [SimpleNamespace()]

    pytest.importorskip("torch")
    FAMILIES["qwen3_vl"].dedup_images(Other())  # type: ignore[arg-type]
    assert caplog.messages == ["shared image encoding is off: Other has no Qwen3VLVisionModel"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_equal_images_are_encoded_once_and_nothing_changes(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    import torch
    from tiny_random import build
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(build(tmp_path, family=family))
    tower = model.model.visual
    torch.manual_seed(0)
    grids = [[1, 8, 12], [1, 4, 4]]
    first, second = (torch.randn(h * w, 3 * 2 * 8 * 8) for _, h, w in grids)
    patches = torch.cat([first, first, second, first]).requires_grad_()
    grid = torch.tensor([grids[i] for i in (0, 0, 1, 0)])

    def outcome(**options: bool | None) -> list[torch.Tensor]:
        patches.grad = None
        tower.zero_grad()
        output = tower(patches, grid_thw=grid, **options)
        weight = torch.linspace(-1, 1, output.pooler_output.numel()).view_as(output.pooler_output)
        (output.pooler_output * weight).sum().backward()
        found = [output.last_hidden_state, output.pooler_output, *getattr(output, "deepstack_features", [])]
        return [tensor.detach().clone() for tensor in found] + [tower.patch_embed.proj.weight.grad.clone()]

    encoded: list[int] = []
    tower.patch_embed.register_forward_pre_hook(lambda module, args: encoded.append(len(args[0])))
    plain = outcome()
    FAMILIES[family].dedup_images(model)
    shared = outcome(output_attentions=False, output_hidden_states=None)  # as PEFT's models pass them
    assert encoded == [len(patches), len(patches) - len(first)]
    for a, b in zip(plain, shared, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(a.abs().max()))
    assert caplog.messages == []
    tower(patches, grid_thw=grid, interpolate=True)
    assert caplog.messages == ["shared image encoding is off for a call with grid_thw, interpolate"]


@pytest.mark.slow
def test_the_named_towers_are_transformers_classes() -> None:
    import importlib

    for family in FAMILIES.values():
        module = importlib.import_module(f"transformers.models.{family.model_type}.modeling_{family.model_type}")
        assert hasattr(module, family.vision_tower)


@pytest.mark.slow
def test_parameters_are_counted_in_every_family(tmp_path: Path) -> None:
    from safetensors import safe_open
    from tiny_random import build

    from geozero.training.estimate import model_size

    for family in ("qwen3_vl", "qwen2_5_vl"):
        path = build(tmp_path / family, family=family)
        with safe_open(path / "model.safetensors", "pt") as weights:
            total = {name: weights.get_tensor(name).numel() for name in weights.keys()}  # noqa: SIM118
        size = model_size.read(path)
        assert size is not None and size.parameters == sum(total.values())
        assert size.vision == sum(n for name, n in total.items() if "visual" in name)


# -- one resize rule ---------------------------------------------------------------------------------------------


SIDES = st.one_of(st.integers(1, 8_000), st.integers(1, 200))


@pytest.mark.slow
@given(SIDES, SIDES, st.sampled_from([16, 28, 32]), st.integers(1, 1_000), st.integers(4, 4_000))
@example(1, 1, 16, 1, 257)  # no least number of pixels
def test_a_fitted_size_is_on_the_grid_within_the_limits_and_stays(
    width: int, height: int, factor: int, tokens: int, share: int
) -> None:
    process.prepare()
    limits = GridLimits(tokens * factor**2 // share, tokens * factor**2, factor)
    try:
        limits.check(width, height)
    except BadRecord:
        assert max(width, height) > min(width, height) * min(MAX_RATIO, tokens)
        return
    fitted = limits.size(width, height)
    assert min(fitted) > 0 and fitted[0] % factor == fitted[1] % factor == 0
    assert limits.min_pixels <= fitted[0] * fitted[1] <= limits.max_pixels
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    # the rule is the published one, which takes a fitted image as it is
    again = smart_resize(fitted[1], fitted[0], factor, max(1, limits.min_pixels), limits.max_pixels)
    assert again == fitted[::-1]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What trainer, engines, vLLM and servers make of many images, found in a process of its own (this file)."""
    out = tmp_path_factory.mktemp("sizes")
    done = subprocess.run([sys.executable, __file__, str(out)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((out / "sizes.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trainer_engines_and_servers_fit_every_image_alike(sizes: dict[str, Any]) -> None:
    """Each row has the image's patches and the prompt's tokens, by everyone who sees it."""
    assert len(sizes) == 6
    for name, rows in sizes.items():
        assert all(row.pop("same pixels") for row in rows), name
        assert len(rows) >= 15, name
        for row in rows:
            alike = {json.dumps(value) for who, value in row.items() if who != "image"}
            assert len(alike) == 1, (name, row)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_image_becomes_as_many_tokens_as_the_published_processor_makes(sizes: dict[str, Any]) -> None:
    (row,) = [row for row in sizes["qwen3_vl default"] if row["image"] == [64, 64]]
    assert row["trainer"][0] == [1, 16, 16]  # 64 tokens of 2 × 2 patches, where there were 4
    (row,) = [row for row in sizes["qwen3_vl min 4096"] if row["image"] == [64, 64]]
    assert row["trainer"][0] == [1, 4, 4]


def all_sizes(out: Path) -> dict[str, Any]:
    """For two families, with several limits: patches and prompt tokens of images from 1 × 1 to 8,000 × 8,000."""
    import base64
    import io
    import os
    import random
    import shutil

    from PIL import Image
    from tiny_random import build

    from geozero.common import process

    process.prepare()
    from swift.model import get_model_processor
    from swift.template import get_template
    from transformers import AutoProcessor

    from geozero.engines.base import EngineOptions, Request
    from geozero.engines.openai_client import data_url
    from geozero.engines.prompts import Prompter
    from geozero.engines.vllm_inprocess import distribution

    chance = random.Random(0)
    images = [(64, 64), (1, 1), (8_000, 8_000), (8_000, 90), (3, 200), (1_024, 1_024), (600, 600), (256, 256)]
    images += [(round(8_000 ** chance.random()), round(8_000 ** chance.random())) for _ in range(14)]
    found: dict[str, Any] = {}
    for model_type, own in (("qwen3_vl", (65_536, 16_777_216)), ("qwen2_5_vl", (3_136, 12_845_056))):
        patch = PUBLISHED[model_type]["patch_size"]
        path = build(out / model_type, family=model_type, patch_size=patch, pixels=own)  # type: ignore[arg-type]
        family = family_at(path)
        family.register_template()
        _, processor = get_model_processor(str(path), load_model=False, model_type=model_type, download_model=False)
        as_published(path, model_type)
        for label, most, least in (("default", 802_816, None), ("min 4096", 802_816, 4_096), ("small", 40_000, None)):
            prompter = Prompter(path, EngineOptions(max_pixels=most, min_pixels=least, max_length=1 << 20))
            limits = family.limits(path, most, least)
            template = get_template(processor, template_type=model_type, max_pixels=most)
            os.environ.pop(MIN_PIXELS.upper(), None)
            if least is not None:
                os.environ[MIN_PIXELS.upper()] = str(least)  # as ms-swift does with its argument `model_kwargs`
            exported = shutil.copytree(path, out / f"{model_type}-{label}")
            family.write_limits(exported, limits)
            plain = AutoProcessor.from_pretrained(exported)
            vllm = vllm_processor(path, limits.processor_kwargs) if distribution() else None
            rows = []
            for width, height in images:
                try:
                    limits.check(width, height)
                except BadRecord:
                    continue
                image = Image.new("RGB", (width, height), "green")
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                turns = [{"role": "user", "content": "<image>What is this?"}]
                prompt = prompter.prepare(Request("a", turns, buffer.getvalue()))
                encoded = template.encode({"messages": turns, "images": [image]})
                request = Image.open(io.BytesIO(base64.b64decode(data_url(prompt.image).partition(b",")[2])))
                pixels = plain.image_processor(request, return_tensors="pt")["pixel_values"]
                rows.append({
                    "image": [width, height],
                    "same pixels": encoded["pixel_values"].equal(pixels),
                    "trainer": [encoded["image_grid_thw"][0].tolist(), len(encoded["input_ids"])],
                    "engine": [[1, prompt.image.height // patch, prompt.image.width // patch], prompt.n_tokens],
                    "exported model, plain server": read(plain, prompt.text, image),
                    "exported model, our request": read(plain, prompt.text, request),
                    **({} if vllm is None else {"vLLM": vllm(prompt.text, prompt.image)}),
                    **({} if vllm is None else {"vLLM, raw image": vllm(prompt.text, image)}),
                })  # fmt: skip
            found[f"{model_type} {label}"] = rows
    return found


def as_published(path: Path, model_type: str) -> None:
    """Write a checkpoint's processor configuration in the files and words of the published ones."""
    file = path / "processor_config.json"
    values = json.loads(file.read_text())
    file.unlink()
    image = {name: value for name, value in values["image_processor"].items() if name != "size"}
    (path / "preprocessor_config.json").write_text(json.dumps(image | PUBLISHED[model_type]))
    (path / "video_preprocessor_config.json").write_text(json.dumps(values["video_processor"]))


def read(processor: Any, text: str, image: Any) -> list[Any]:
    """Patches and prompt tokens by a processor of transformers, as a server calls it."""
    found = processor(text=[text], images=[image], return_tensors="pt")
    return [found["image_grid_thw"][0].tolist(), found["input_ids"].shape[1]]


def vllm_processor(path: Path, kwargs: dict[str, Any]) -> Any:
    """The same by vLLM's own multimodal processor, with the settings of our engine; no engine is started."""
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    from geozero.engines.vllm_inprocess import inspect_here

    inspect_here(path)
    config = ModelConfig(model=str(path), mm_processor_kwargs=kwargs, limit_mm_per_prompt={"image": 1, "video": 0})
    processor = MULTIMODAL_REGISTRY.create_processor(config)

    def read(text: str, image: Any) -> list[Any]:
        tokens = processor.info.get_tokenizer().encode(text)
        items = processor.info.parse_mm_data({"image": image})
        found = processor.apply(ProcessorInputs(tokens, items), TimingContext(enabled=False))
        (grid,) = [item["image_grid_thw"].data for item in found["mm_kwargs"]["image"]]
        return [grid.tolist(), len(found["prompt_token_ids"])]

    return read


if __name__ == "__main__":
    (Path(sys.argv[1]) / "sizes.json").write_text(json.dumps(all_sizes(Path(sys.argv[1]))))
