"""Qwen2.5-VL and Qwen3-VL: images of any size, resized to a grid whose squares become one token each."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError
from geozero.engines.families.base import MIN_PIXELS, Family, ImageLimits
from geozero.engines.trust import read_object

PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"  # today's file, and the older one
# The published processor refuses 200. Rounding to the grid can double a ratio, and a fitted image must fit again.
MAX_RATIO = 100
MIN_SHARE = 4  # min_pixels is at most max_pixels / 4: between closer limits no multiple of the grid may lie
CHANNELS, TEMPORAL_PATCH = 3, 2


@dataclass(frozen=True)
class GridLimits(ImageLimits):
    """The resize of the published processor, transformers' `smart_resize`, within limits in which it is idempotent.

    Attributes:
        factor: side in pixels of the square that becomes one token; fitted sides are multiples of it.
    """

    factor: int

    def check(self, width: int, height: int) -> None:
        """Refuse sides of too high a ratio: at most 100, and no more than the tokens that `max_pixels` allows.

        Raises:
            BadRecord: it is too high.
        """
        if max(width, height) > min(width, height) * min(MAX_RATIO, self.max_pixels / self.factor**2):
            raise BadRecord("image_too_thin", f"{width}x{height}")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the fitted image, multiples of `factor`."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        self.check(width, height)
        least = max(1, self.min_pixels)  # with 0 the rule gives small images no pixels at all
        new_height, new_width = smart_resize(height, width, self.factor, least, self.max_pixels)
        return int(new_width), int(new_height)

    def tokens_at(self, width: int, height: int) -> int:
        """As the rule gives them but for rounding; without its import, which is heavy."""
        return max(1, min(max(width * height, self.min_pixels), self.max_pixels) // self.factor**2)

    def fit(self, image: Image.Image) -> Image.Image:
        size = self.size(image.width, image.height)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)

    def tokens(self, width: int, height: int) -> int:
        return width * height // self.factor**2

    @property
    def legacy(self) -> bool:
        return self.min_pixels == 4 * self.factor**2

    @property
    def processor_kwargs(self) -> dict[str, Any]:
        return {"size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}}


class QwenVL(Family):
    """A generation of Qwen's vision-language models."""

    def limits(self, path: Path, max_pixels: int, min_pixels: int | None = None) -> GridLimits:
        file, _, values = _processor(path)
        size = values.get("size") or {}
        try:
            factor = int(values["patch_size"]) * int(values["merge_size"])
            least = int(values.get("min_pixels") or size["shortest_edge"])
            most = min(max_pixels, int(values.get("max_pixels") or size["longest_edge"]))
        except (KeyError, TypeError, ValueError):
            raise InputError("no Qwen-VL image processor", str(file), "download the model again") from None
        if most < factor**2:
            raise InputError(f"max_pixels {most} is less than one token's {factor**2}", str(path), "raise max_pixels")
        if min_pixels is not None and min_pixels * MIN_SHARE > most:
            what = f"min_pixels {min_pixels} is more than a quarter of max_pixels {most}"
            raise InputError(what, "model.min_pixels", "lower it, or raise model.max_pixels")
        return GridLimits(min(least, most // MIN_SHARE) if min_pixels is None else min_pixels, most, factor)

    def write_limits(self, path: Path, limits: ImageLimits) -> None:
        file, document, values = _processor(path)
        values |= limits.processor_kwargs
        for name in ("min_pixels", "max_pixels"):  # they would take precedence
            values.pop(name, None)
        write_json(file, document)

    def register_template(self) -> None:
        """See `Family`.

        ms-swift's own template has the image tokens of Qwen's vocabulary written into it, and resizes images by another
        rule than the published processor.
        """
        from swift.template import TEMPLATE_MAPPING, register_template
        from swift.utils import get_env_args

        family, meta = self, TEMPLATE_MAPPING[self.template]
        stock: Any = meta.template_cls
        if hasattr(stock, "limits"):
            return

        class FittingTemplate(stock):  # type: ignore[misc]
            limits: Any = None  # None: those of the arguments

            def init_processor(self, processor: Any) -> None:
                self.placeholder_tokens = list(stock.placeholder_tokens)  # ms-swift appends ids to a class's list
                super().init_processor(processor)
                if processor is not None:
                    self.image_token_id = processor.image_token_id
                    self.video_token_id = processor.video_token_id

            def _get_max_pixels(self, inputs: Any = None) -> None:
                """No limit: ms-swift would resize a first time."""

            def replace_tag(self, media_type: str, index: int, inputs: Any) -> Any:
                if media_type != "image":
                    return super().replace_tag(media_type, index, inputs)
                if self.limits is None:
                    least = get_env_args(MIN_PIXELS, int, None)
                    self.limits = family.limits(Path(self.model_info.model_dir), self.max_pixels or sys.maxsize, least)
                inputs.images[index] = self.limits.fit(inputs.images[index])
                if self.mode == "vllm":
                    inputs.mm_processor_kwargs["do_resize"] = False
                return ["<|vision_start|><|image_pad|><|vision_end|>"]

        for name in self.templates:
            register_template(replace(meta, template_type=name, template_cls=FittingTemplate), exist_ok=True)


def _count_qwen2_5(text: Mapping[str, Any], vision: Mapping[str, Any]) -> tuple[int, int]:
    """See `Family.count`: biases in attention; the tower has RMS norms, a gated MLP and no position embeddings."""
    wide, mlp = vision["hidden_size"], vision["intermediate_size"]
    head = text["hidden_size"] // text["num_attention_heads"]
    block = 4 * wide * wide + 3 * wide * mlp + 7 * wide + 2 * mlp
    biases = (text["num_attention_heads"] + 2 * text["num_key_value_heads"]) * head
    return biases, _patch(vision) + vision["depth"] * block + _merger(vision) + wide


def _count_qwen3(text: Mapping[str, Any], vision: Mapping[str, Any]) -> tuple[int, int]:
    """See `Family.count`: norms of queries and keys; the tower has position embeddings and a deep stack of mergers."""
    wide, mlp, stacked = vision["hidden_size"], vision["intermediate_size"], len(vision["deepstack_visual_indexes"])
    block = 4 * wide * wide + 2 * wide * mlp + 9 * wide + mlp
    positions = vision["num_position_embeddings"] * wide
    # the last merger normalises before it merges, those of the deep stack after
    norms = 2 * wide + stacked * 2 * wide * vision["spatial_merge_size"] ** 2
    mergers = (1 + stacked) * _merger(vision) + norms
    return 2 * text["head_dim"], _patch(vision) + wide + positions + vision["depth"] * block + mergers


def _patch(vision: Mapping[str, Any]) -> int:
    return int(CHANNELS * TEMPORAL_PATCH * vision["patch_size"] ** 2 * vision["hidden_size"])


def _merger(vision: Mapping[str, Any]) -> int:
    merged = vision["hidden_size"] * vision["spatial_merge_size"] ** 2
    return int((merged + 1) * (merged + vision["out_hidden_size"]))


def _processor(path: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The file of a checkpoint that configures its image processor, all that it holds, and the part about images."""
    for name in (PROCESSOR, IMAGE_PROCESSOR):
        file = path / name
        if file.is_file():
            document = read_object(file)
            if name == IMAGE_PROCESSOR or "image_processor" in document:
                return file, document, document.get("image_processor", document)
    raise InputError(f"no {IMAGE_PROCESSOR} or {PROCESSOR}", str(path), "download the model again")


QWEN3_VL = QwenVL("qwen3_vl", "qwen3_vl", "norm1000", "Qwen3VLVisionModel", _count_qwen3)
QWEN3_VL_MOE = QwenVL("qwen3_vl_moe", "qwen3_vl", "norm1000", "Qwen3VLMoeVisionModel")
QWEN2_5_VL = QwenVL("qwen2_5_vl", "qwen2_5_vl", "resized28", "Qwen2_5_VisionTransformerPretrainedModel", _count_qwen2_5)
