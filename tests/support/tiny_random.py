"""A random Qwen3-VL (or Qwen2.5-VL) of about 400,000 parameters with its own vocabulary, for tests of real models.

`build(directory)` writes a whole Hugging Face checkpoint in a few seconds; the fixture `tiny_random` (conftest.py)
builds it once a test session. Its answers are noise; its shapes, files and quirks are a real model's.
"""

from __future__ import annotations

import json
from pathlib import Path

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
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (  # Qwen2.5-VL's template has one, and ms-swift's too
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
)
TEXTS = (
    "Classify the image into one of these classes: farmland, forest, river. Answer with one class name.",
    "Is a ship present in the image? yes no rural urban 0 1 2 3 4 5 6 7 8 9",
    "Locate: the red ship. Answer with its bounding box [x1, y1, x2, y2].",
    "When answering, first describe your reasoning or visual observations in natural language, and then provide "
    "the final answer enclosed in <answer></answer>.",
    "user assistant system",
)
PADDED_ROWS = 10  # rows of the output layer that stand for no token, as in the real checkpoints


def build(
    directory: Path,
    seed: int = 0,
    patch_size: int = 8,
    family: str = "qwen3_vl",
    pixels: tuple[int, int] = (16 * 16, 256 * 256),
) -> Path:
    """Write the checkpoint (model, tokenizer, processor, generation config) and return its directory.

    Args:
        family: qwen3_vl or qwen2_5_vl.
        pixels: least and most of the image processor.
    """
    from geozero.common import process

    process.prepare()
    import torch
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, Qwen2Tokenizer, Qwen2VLImageProcessor
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    vocabulary = trained.get_vocab()
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    torch.manual_seed(seed)
    third = family == "qwen3_vl"
    prefix = "Qwen3VL" if third else "Qwen2_5_VL"
    config = getattr(transformers, f"{prefix}Config")(
        text_config={
            "vocab_size": len(tokenizer) + PADDED_ROWS,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            **({"head_dim": 32} if third else {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"]}),
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                **({"mrope_interleaved": True} if third else {}),
            },
            "tie_word_embeddings": True,
            "initializer_range": 0.2,  # far from uniform answers, so that greedy ties cannot happen
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": patch_size,
            "out_hidden_size": 128,
            "initializer_range": 0.2,
            **(
                {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
                if third
                else {"window_size": 8 * patch_size, "fullatt_block_indexes": [1]}
            ),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
        # the published checkpoints carry sampling defaults too: nothing of ours may read them
        do_sample=True,
        temperature=0.7,
        top_k=20,
        top_p=0.8,
    )
    model.save_pretrained(directory)
    video = transformers.Qwen3VLVideoProcessor if third else transformers.Qwen2VLVideoProcessor
    getattr(transformers, f"{prefix}Processor")(
        Qwen2VLImageProcessor(patch_size=patch_size, min_pixels=pixels[0], max_pixels=pixels[1]),
        tokenizer,
        video(patch_size=patch_size),
        chat_template=CHAT_TEMPLATE if third else DEFAULT_SYSTEM + CHAT_TEMPLATE,
    ).save_pretrained(directory)
    return directory
