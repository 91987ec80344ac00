"""The tiny Qwen3-VL: transformers' own Qwen3-VL classes with about two million parameters and its own vocabulary.

About 2.3 M parameters: text 192 × 4 layers, vision 96 × 3 layers, patch 8, so a scene of 96×96 pixels
becomes 36 image tokens. Sizes are our choice; the classes, the processor and the chat format are Qwen3-VL's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geozero.common import process

VOCABULARY = 1_152  # tokens, the special ones included
PATCH = 8  # pixels; 12 and 16 see small objects clearly worse
MERGE = 2  # a merged image token covers PATCH * MERGE pixels
MAX_POSITIONS = 2_048
IMAGE_PIXELS = (32 * 32, 256 * 256)  # least and most pixels the processor keeps

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
END_TOKENS = ("<|im_end|>", "<|endoftext|>")

# Qwen3-VL's chat format without tools and videos.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if 'text' in part %}{{ part.text }}"
    "{% else %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_processor(texts: Iterable[str]) -> Any:
    """Train a byte-level BPE on the texts and wrap it as a Qwen3-VL processor."""
    process.prepare()
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AddedToken, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.model_max_length = MAX_POSITIONS
    size = {"shortest_edge": IMAGE_PIXELS[0], "longest_edge": IMAGE_PIXELS[1]}
    half = [0.5, 0.5, 0.5]  # Qwen3-VL scales pixels to -1 … 1
    common = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2, "size": size}
    common |= {"image_mean": half, "image_std": half}
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**common),
        tokenizer,
        Qwen3VLVideoProcessor(**common),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: Any, seed: int) -> Any:
    """A randomly initialised tiny Qwen3-VL whose special token ids are the processor's.

    Returns:
        transformers.Qwen3VLForConditionalGeneration in float32.
    """
    import torch
    from transformers import GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,  # vLLM's CPU attention supports 32, 64, 80, …
            "max_position_embeddings": MAX_POSITIONS,
            "rope_parameters": rope,
            "tie_word_embeddings": True,
            "pad_token_id": ids["<|endoftext|>"],
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
        },
        vision_config=vision_config(),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config).float()
    model.model.visual.load_state_dict(build_visual(vision_config(), seed).state_dict())
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[ids[token] for token in END_TOKENS],
        pad_token_id=ids["<|endoftext|>"],
        # a weak policy must not write an image token: re-encoding its own text would fail on it
        suppress_tokens=[index for token, index in ids.items() if token not in END_TOKENS],
    )
    return model


def vision_config() -> dict[str, Any]:
    """The image encoder's sizes."""
    return {
        "depth": 3,
        "hidden_size": 96,
        "intermediate_size": 288,
        "num_heads": 6,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 192,
        "num_position_embeddings": 144,  # a square: the 12 × 12 patches of a 96-pixel scene
        "deepstack_visual_indexes": [1],
    }


def build_visual(config: dict[str, Any], seed: int) -> Any:
    """A randomly initialised image encoder, the same whatever the vocabulary: its training can start first."""
    import torch
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    torch.manual_seed(seed)
    return Qwen3VLVisionModel(Qwen3VLVisionConfig(**config)).float()


def save(model: Any, processor: Any, out: Path) -> None:
    """Write a plain Hugging Face checkpoint: weights, configuration, processor, generation settings."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
