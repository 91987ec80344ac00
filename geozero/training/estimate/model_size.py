"""How many parameters a Qwen3-VL has, from its configuration alone: nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPORAL_PATCH, CHANNELS = 2, 3

# The published configurations, for plans on machines where the weights are not.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-VL-2B-Instruct": {
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "num_position_embeddings": 2304,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "vision_config": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "num_position_embeddings": 2304,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class ModelSize:
    """Parameters by part, and the sizes that activations go by.

    Attributes:
        text: of the language model, its embeddings and output layer included.
        vision: of the vision tower with all its mergers.
        layer: of one layer of the language model, its largest repeated part.
        linear: of the language model's linear layers, each as (inputs, outputs), once a layer.
    """

    text: int
    vision: int
    layer: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    patch: int
    merge: int
    linear: tuple[tuple[int, int], ...]

    @property
    def parameters(self) -> int:
        return self.text + self.vision

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on every linear layer of the language model."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.linear)

    def image_tokens(self, pixels: int) -> int:
        """Tokens that an image takes in the language model."""
        return max(1, pixels // (self.patch * self.merge) ** 2)


def read(model: Path | str) -> ModelSize | None:
    """The shape of a checkpoint's directory or a published model's name; None where neither is known."""
    config = Path(model) / "config.json"
    if config.is_file():
        try:
            return of(json.loads(config.read_text()))
        except (ValueError, KeyError, TypeError):
            return None
    return of(PUBLISHED[str(model)]) if str(model) in PUBLISHED else None


def of(config: Mapping[str, Any]) -> ModelSize:
    """Count the parameters of a configuration as Hugging Face writes it.

    Raises:
        KeyError: it is no Qwen3-VL's.
    """
    text, vision = config["text_config"], config["vision_config"]
    hidden, inner, head = text["hidden_size"], text["intermediate_size"], text["head_dim"]
    queries, keys = text["num_attention_heads"] * head, text["num_key_value_heads"] * head
    linear = (
        (hidden, queries),
        (hidden, keys),
        (hidden, keys),
        (queries, hidden),
        (hidden, inner),
        (hidden, inner),
        (inner, hidden),
    )
    layer = sum(a * b for a, b in linear) + 2 * head + 2 * hidden
    embeddings = text["vocab_size"] * hidden
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    wide, deep, merge = vision["hidden_size"], vision["depth"], vision["spatial_merge_size"]
    mlp, merged, out = vision["intermediate_size"], wide * merge**2, vision["out_hidden_size"]
    block = 4 * wide + 4 * wide * wide + 4 * wide + 2 * wide * mlp + mlp + wide
    merger = merged * merged + merged + merged * out + out
    patch = CHANNELS * TEMPORAL_PATCH * vision["patch_size"] ** 2 * wide + wide
    stacked = len(vision["deepstack_visual_indexes"])
    return ModelSize(
        text=(embeddings if tied else 2 * embeddings) + text["num_hidden_layers"] * layer + hidden,
        # the last merger normalises before it merges, those of the deep stack after
        vision=patch + vision["num_position_embeddings"] * wide + deep * block
        + (1 + stacked) * merger + 2 * wide + stacked * 2 * merged,
        layer=layer,
        layers=text["num_hidden_layers"],
        hidden=hidden,
        intermediate=inner,
        vocabulary=text["vocab_size"],
        vision_layers=deep,
        vision_hidden=wide,
        vision_intermediate=mlp,
        patch=vision["patch_size"],
        merge=merge,
        linear=linear,
    )  # fmt: skip
