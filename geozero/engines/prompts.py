"""From a request to what a model reads and back: chat text, fitted image and their tokens; the text of a completion.

Every engine gets its images from here, fitted by the model family's one resize rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from geozero.common import process
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import decode
from geozero.engines.base import Completion, EngineOptions, Request
from geozero.engines.checkpoint import Vocabulary, positions, special_tokens
from geozero.engines.families import family_at

IMAGE_MARK = "<image>"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads: `text` with chat template and prefix, `image` fitted, `n_tokens` of both together."""

    text: str
    image: Image.Image
    n_tokens: int


class Prompter:
    """Turns requests into prompts and tokens into completions, for one checkpoint.

    Args:
        path: the checkpoint's directory.
        options: limits of image and length; the checkpoint's processor and positions may set lower ones.

    Raises:
        InputError: no adapter for the checkpoint's model type, or it is another one than required.
    """

    def __init__(self, path: Path, options: EngineOptions) -> None:
        process.prepare()
        self.family = family_at(path)
        if options.model_type not in (None, self.family.model_type):
            what = f"a {self.family.model_type} checkpoint, but model.model_type is {options.model_type}"
            raise InputError(what, str(path), "give another checkpoint, or correct model.model_type")
        from transformers import AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self.processor: Any = AutoProcessor.from_pretrained(path)
        self.tokenizer: Any = self.processor.tokenizer
        self.vocabulary = Vocabulary.of(path, self.tokenizer)
        self.special_tokens = special_tokens(path)
        self.limits = self.family.limits(path, options.max_pixels, options.min_pixels)
        self.max_length = min(options.max_length, positions(path) or options.max_length)

    def prepare(self, request: Request) -> Prompt:
        """The prompt of a request.

        Raises:
            BadRecord: the image cannot be read or is too thin, a text contains a special token, or the prompt leaves no
                room for an answer.
        """
        image = self.limits.fit(decode(request.image))
        mark = {"type": "image"}
        turns: list[dict[str, Any]] = [
            {"role": turn["role"], "content": content_parts(turn["content"], mark)} for turn in request.messages
        ]
        texts = [part.get("text", "") for turn in turns for part in turn["content"]]
        if found := next((token for token in self.special_tokens if any(token in text for text in texts)), None):
            raise BadRecord("special_token", found)
        text = str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        text += request.prefix
        n_tokens = len(self.tokenizer(text)["input_ids"]) - 1 + self.limits.tokens(image)
        if n_tokens >= self.max_length:
            raise BadRecord(
                "prompt_too_long", f"{n_tokens} tokens, the limit for prompt and answer is {self.max_length}"
            )
        return Prompt(text, image, n_tokens)

    def budget(self, prompt: Prompt, max_tokens: int) -> int:
        """Maximum tokens of a completion after this prompt."""
        return min(max_tokens, self.max_length - prompt.n_tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion, special tokens left out, spaces kept."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def completion(self, tokens: Sequence[int], budget: int, seed: int | None) -> Completion:
        """The completion that an engine's tokens are, up to the first end token or the budget."""
        end = set(self.vocabulary.end)
        length = next((i for i, token in enumerate(tokens) if token in end), len(tokens))
        kept = tokens[: min(length, budget)]
        return Completion(self.decode(kept), "length" if length >= budget else "stop", len(kept), seed)

    def describe(self) -> dict[str, Any]:
        """The limits, for `Engine.describe`."""
        return {
            "max_pixels": self.limits.max_pixels,
            "min_pixels": self.limits.min_pixels,
            "max_length": self.max_length,
        }


def content_parts(content: str, image: dict[str, Any]) -> list[dict[str, Any]]:
    """A turn's text as chat templates and servers expect it: text parts, and `image` at each mark."""
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(content.split(IMAGE_MARK)):
        if number:
            parts.append(image)
        if text:
            parts.append({"type": "text", "text": text})
    return parts
