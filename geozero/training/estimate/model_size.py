"""How many parameters a model has, from its configuration alone: nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero.engines.families import FAMILIES

# The published configurations, for plans on machines where the weights are not.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-VL-2B-Instruct": {
        "model_type": "qwen3_vl",
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
        "model_type": "qwen3_vl",
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
    """Parameters by part, and the sizes that decide the activations.

    Attributes:
        text: of the language model, its embeddings and output layer included.
        vision: of the vision tower with all its mergers.
        layer: of one layer of the language model, its largest repeated part.
        linear: of the language model's linear layers, each as (inputs, outputs), once a layer.
        keys: width of a layer's keys, and of its values.
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
    keys: int

    @property
    def parameters(self) -> int:
        return self.text + self.vision

    @property
    def adapted(self) -> int:
        """Parameters of the language model's linear layers, which a LoRA adapter covers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear)

    @property
    def cache_bytes(self) -> int:
        """Bytes that a token takes in the cache of keys and values, in bfloat16."""
        return 2 * 2 * self.keys * self.layers

    def image_tokens(self, pixels: int) -> int:
        """Tokens that an image takes in the language model."""
        return max(1, pixels // (self.patch * self.merge) ** 2)


def read(model: Path | str) -> ModelSize | None:
    """The size of a checkpoint's directory or a published model's name; None where neither is known."""
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
        KeyError: no adapter counts this kind of model.
    """
    count = FAMILIES[config["model_type"]].count
    if count is None:
        raise KeyError(config["model_type"])
    text, vision = config.get("text_config", config), config["vision_config"]
    hidden, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    head = text.get("head_dim") or hidden // text["num_attention_heads"]
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
    extra, tower = count(text, vision)
    layer = sum(a * b for a, b in linear) + 2 * hidden + extra
    embeddings = text["vocab_size"] * hidden
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    return ModelSize(
        text=(embeddings if tied else 2 * embeddings) + layers * layer + hidden,
        vision=tower,
        layer=layer,
        layers=layers,
        hidden=hidden,
        intermediate=inner,
        vocabulary=text["vocab_size"],
        vision_layers=vision["depth"],
        vision_hidden=vision["hidden_size"],
        vision_intermediate=vision["intermediate_size"],
        patch=vision["patch_size"],
        merge=vision["spatial_merge_size"],
        linear=linear,
        keys=keys,
    )
