"""Do once a group what ms-swift does once a completion: ask the engine, and encode prompt and picture.

The members of a group share prompt and picture and stand side by side. Importing this module imports ms-swift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from swift.infer_engine.protocol import RolloutOutput

IGNORED = -100  # label of a token that is not learned


def share_a_prompt(samples: Sequence[Any], size: int) -> bool:
    """Whether the samples are whole groups of `size`, each of one prompt."""
    return len(samples) % size == 0 and all(
        _prompt(sample) == _prompt(samples[i - i % size]) for i, sample in enumerate(samples)
    )


def split_choices(outputs: Sequence[RolloutOutput]) -> list[RolloutOutput]:
    """One output a completion from one a prompt, in order."""
    return [
        RolloutOutput(response=replace(output.response, choices=[replace(choice, index=0)]))
        for output in outputs
        for choice in output.response.choices
    ]


class SharedEncoding:
    """ms-swift's `encode_sample` for members of a group: the first in full, the others by exchanging the completion.

    Whatever does not look the way it must (more than one turn, loss masks, unknown columns) is encoded in full.
    """

    COLUMNS = frozenset(
        {"input_ids", "labels", "pixel_values", "image_grid_thw", "mm_token_type_ids", "length", "lengths"}
    )

    def __init__(self, encode: Callable[[Any, Any], dict[str, Any]]) -> None:
        self._encode = encode
        self._key: Any = None
        self._prompt_tokens = 0
        self._first: dict[str, Any] = {}

    def __call__(self, sample: Any, template: Any) -> dict[str, Any]:
        completion = _completion(sample)
        key = (_prompt(sample), id(template), template.mode)
        if completion is not None and key == self._key:
            return self._exchange(completion)
        encoded = self._encode(sample, template)
        self._key = None
        if completion is not None and self._is_plain(encoded, completion):
            self._key, self._first = key, encoded
            self._prompt_tokens = len(encoded["input_ids"]) - len(completion)
        return encoded

    def _is_plain(self, encoded: dict[str, Any], completion: list[int]) -> bool:
        prompt = len(encoded["input_ids"]) - len(completion)
        return (
            set(encoded) - {"_extra_kwargs"} <= self.COLUMNS
            and encoded["input_ids"][prompt:] == completion
            and encoded["labels"] == [IGNORED] * prompt + completion
        )

    def _exchange(self, completion: list[int]) -> dict[str, Any]:
        n = self._prompt_tokens
        encoded = dict(self._first)
        encoded["input_ids"] = self._first["input_ids"][:n] + completion
        encoded["labels"] = [IGNORED] * n + completion
        if "mm_token_type_ids" in encoded:
            types = self._first["mm_token_type_ids"]
            encoded["mm_token_type_ids"] = torch.cat([types[:n], types.new_zeros(len(completion))])
        encoded["length"] = len(encoded["input_ids"])
        encoded["lengths"] = [encoded["length"]]
        return encoded


def _prompt(sample: Any) -> tuple[Any, ...]:
    answered = bool(sample.messages) and sample.messages[-1]["role"] == "assistant"
    turns = sample.messages[:-1] if answered else sample.messages
    return turns, sample.images, sample.videos, sample.audios, sample.tools, sample.objects, sample.extra


def _completion(sample: Any) -> list[int] | None:
    """The tokens of the one completion, flat or as the only turn; None where ms-swift has more to do."""
    tokens = sample.response_token_ids
    if not tokens or sample.response_loss_mask:
        return None
    if isinstance(tokens[0], int):
        return list(tokens)
    return list(tokens[0]) if len(tokens) == 1 else None
