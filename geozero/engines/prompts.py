"""From a request to what a model reads: the chat text, the fitted image, and how many tokens they make.

Every engine takes its images from here, so that all see the same pixels: one resize to the processor's grid
within the pixel limit, after which no library resizes again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from geozero.common import process
from geozero.common.errors import BadRecord
from geozero.corpus.images import decode
from geozero.engines.base import Request
from geozero.engines.checkpoint import Vocabulary, positions, special_tokens

IMAGE_MARK = "<image>"
MIN_IMAGE_TOKENS = 4  # Qwen's own least; smaller images are scaled up
MAX_RATIO = 200  # Qwen's own limit of the sides' ratio


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request made ready: `text` with chat template and prefix, `image` fitted, `n_tokens` of both together."""

    text: str
    image: Image.Image
    n_tokens: int


class Prompter:
    """Turns requests into prompts for one checkpoint.

    Args:
        path: the checkpoint's directory.
        max_pixels: most pixels of a fitted image; the checkpoint's processor may set a lower limit.
        max_length: most tokens of prompt and completion together; the model's positions may set a lower limit.
    """

    def __init__(self, path: Path, max_pixels: int, max_length: int) -> None:
        process.prepare()
        from transformers import AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self.processor: Any = AutoProcessor.from_pretrained(path)
        self.tokenizer: Any = self.processor.tokenizer
        self.vocabulary = Vocabulary.of(path, self.tokenizer)
        self.special_tokens = special_tokens(path)
        images = self.processor.image_processor
        self.factor = int(images.patch_size * images.merge_size)
        self.max_pixels = min(max_pixels, int(images.size["longest_edge"]))
        self.max_length = min(max_length, positions(path) or max_length)

    @property
    def min_pixels(self) -> int:
        return MIN_IMAGE_TOKENS * self.factor**2

    def prepare(self, request: Request) -> Prompt:
        """The prompt of a request.

        Raises:
            BadRecord: the image cannot be read or is too long and thin, a text contains a special token, or the prompt
                leaves no room to answer.
        """
        image = fit(decode(request.image), self.factor, self.min_pixels, self.max_pixels)
        contents = [_parts(turn["content"]) for turn in request.messages]
        texts = [part.get("text", "") for content in contents for part in content]
        if found := next((token for token in self.special_tokens if any(token in text for text in texts)), None):
            raise BadRecord("special_token", found)
        roles = [turn["role"] for turn in request.messages]
        turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        text = str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        text += request.prefix
        n_image = image.width * image.height // self.factor**2
        n_tokens = len(self.tokenizer(text)["input_ids"]) - 1 + n_image
        if n_tokens >= self.max_length:
            raise BadRecord(
                "prompt_too_long", f"{n_tokens} tokens, the limit for prompt and answer is {self.max_length}"
            )
        return Prompt(text, image, n_tokens)

    def budget(self, prompt: Prompt, max_tokens: int) -> int:
        """Tokens that a completion may have after this prompt."""
        return min(max_tokens, self.max_length - prompt.n_tokens)

    def decode(self, tokens: list[int]) -> str:
        """The text of a completion, special tokens left out, spaces as they are."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def fit(image: Image.Image, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """Scale an image to sides that are multiples of `factor` and an area within the limits (Qwen's rule).

    Raises:
        BadRecord: the sides' ratio is above 200.
    """
    size = fitted_size(image.width, image.height, factor, min_pixels, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def fitted_size(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Width and height after `fit`; a size that already fits comes back unchanged."""
    if max(width, height) / min(width, height) > MAX_RATIO:
        raise BadRecord("image_too_thin", f"{width}x{height}")
    new_w = max(factor, round(width / factor) * factor)
    new_h = max(factor, round(height / factor) * factor)
    if new_w * new_h > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        new_w = max(factor, math.floor(width / shrink / factor) * factor)
        new_h = max(factor, math.floor(height / shrink / factor) * factor)
    elif new_w * new_h < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        new_w = math.ceil(width * grow / factor) * factor
        new_h = math.ceil(height * grow / factor) * factor
    return new_w, new_h


def _parts(content: str) -> list[dict[str, str]]:
    """A turn's text as the chat template wants it: text and image parts in their order."""
    parts: list[dict[str, str]] = []
    for number, text in enumerate(content.split(IMAGE_MARK)):
        if number:
            parts.append({"type": "image"})
        if text:
            parts.append({"type": "text", "text": text})
    return parts
