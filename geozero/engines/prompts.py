"""From a request to what a model reads and back: chat text, fitted image and their tokens; the text of a completion.

Every engine gets its images from here, fitted by the model family's one resize rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image

from geozero.common import process
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import STORED_PIXELS, decode, plain_size
from geozero.engines import trust
from geozero.engines.base import Completion, EngineOptions, Request
from geozero.engines.checkpoint import Vocabulary, check_tokenizer, loading, positions, special_tokens
from geozero.engines.families import family_at

IMAGE_MARK = "<image>"
MOST_RENDERED = 4096  # chats whose text is kept: many samples share a question


@dataclass(frozen=True)
class Prompt:
    """What the model reads: `text` with chat template and prefix, the fitted image, `n_tokens` of both together.

    Attributes:
        fitted: the fitted image, or what makes it.
        file: the encoded image, where any reader that fits it gets an image of the same size.
        unchanged: whether fitting leaves that image's pixels as they are.
    """

    text: str
    fitted: Image.Image | Callable[[], Image.Image]
    n_tokens: int
    file: bytes | None = None
    unchanged: bool = False

    @cached_property
    def image(self) -> Image.Image:
        """The fitted image.

        Raises:
            BadRecord: it cannot be read; only where the prompt was made with `Prompter.reads_late`.
        """
        return self.fitted() if callable(self.fitted) else self.fitted


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
        trust.forbid_code()
        self.path = path
        check_tokenizer(path)
        with loading(path):
            self.processor: Any = AutoProcessor.from_pretrained(path)
            self.tokenizer: Any = self.processor.tokenizer
            self.vocabulary = Vocabulary.of(path, self.tokenizer)
            self.special_tokens = special_tokens(path)
            self.limits = self.family.limits(path, options.max_pixels, options.min_pixels)
            self.max_length = min(options.max_length, positions(path) or options.max_length)
        # Where an image's file says its size and is plain, its pixels are decoded only when `Prompt.image` is read
        self.reads_late = False
        self._rendered: dict[tuple[str, ...], tuple[str, int]] = {}

    def prepare(self, request: Request) -> Prompt:
        """The prompt of a request.

        Raises:
            BadRecord: the image cannot be read or is too thin, a text contains a special token, or the prompt leaves no
                room for an answer.
        """
        size = plain_size(request.image) if self.reads_late else None
        fitted: Image.Image | Callable[[], Image.Image]
        if size is None:
            fitted = self.limits.fit(decode(request.image, STORED_PIXELS))
            new_size, file, unchanged = fitted.size, None, False
        else:
            new_size = self.limits.size(*size)
            fitted, unchanged = partial(self._fit, request.image), new_size == size
            # the server rounds the sides to the grid as we do; what is scaled to a limit depends on the server's own
            within = self.limits.min_pixels <= size[0] * size[1] <= self.limits.max_pixels
            file = request.image if within else None
        text, n_text = self._text(request)
        n_tokens = n_text - 1 + self.limits.tokens(*new_size)
        if n_tokens >= self.max_length:
            raise BadRecord(
                "prompt_too_long", f"{n_tokens} tokens, the limit for prompt and answer is {self.max_length}"
            )
        return Prompt(text, fitted, n_tokens, file, unchanged)

    def _fit(self, data: bytes) -> Image.Image:
        return self.limits.fit(decode(data, STORED_PIXELS))

    def _text(self, request: Request) -> tuple[str, int]:
        """The chat's text and its number of tokens, an image counting as one; the same turns are rendered once."""
        key = (request.prefix, *(part for turn in request.messages for part in (turn["role"], turn["content"])))
        found = self._rendered.get(key)
        if found is None:
            mark = {"type": "image"}
            turns: list[dict[str, Any]] = [
                {"role": turn["role"], "content": content_parts(turn["content"], mark)} for turn in request.messages
            ]
            texts = [part.get("text", "") for turn in turns for part in turn["content"]]
            if bad := next((token for token in self.special_tokens if any(token in text for text in texts)), None):
                raise BadRecord("special_token", bad)
            chat = partial(self.processor.apply_chat_template, turns, tokenize=False, add_generation_prompt=True)
            text = trust.rendered(lambda: str(chat()), self.path) + request.prefix
            found = text, len(self.tokenizer(text)["input_ids"])
            if len(self._rendered) >= MOST_RENDERED:
                self._rendered.clear()
            self._rendered[key] = found
        return found

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer(text)["input_ids"])

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
