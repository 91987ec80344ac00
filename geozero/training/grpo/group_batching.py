"""Groups of completions that share a prompt: it is encoded once, and groups without a spread give way to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from geozero.training.grpo.objective import is_zero_std

IGNORED = -100  # label of a token that is not learned


def replace_zero_std_groups(
    samples: Sequence[Any], values: torch.Tensor, new: Sequence[Any], new_values: torch.Tensor, size: int
) -> tuple[list[Any], torch.Tensor]:
    """Replace zero-std groups by new groups that are not, in order, as many as there are.

    A prompt that the batch holds already is not taken a second time.

    Args:
        samples: whole groups of `size`.
        values: their rewards, shape (len(samples), functions), R_a in column 0.
        new: further groups, any number; `new_values` are their rewards.

    Returns:
        As many samples and rewards as were given.
    """
    prompts = [_prompt(sample) for sample in samples[::size]]
    useful = []
    for group in (~is_zero_std(new_values[:, 0], size)).nonzero().flatten().tolist():
        if (prompt := _prompt(new[group * size])) not in prompts:
            prompts.append(prompt)
            useful.append(slice(group * size, (group + 1) * size))
    kept, result = list(samples), values.clone()
    for group, source in zip(is_zero_std(values[:, 0], size).nonzero().flatten().tolist(), useful, strict=False):
        target = slice(group * size, (group + 1) * size)
        kept[target], result[target] = new[source], new_values[source]
    return kept, result


class EncodingCache:
    """ms-swift's `encode_sample`: a group's first completion in full, the others by replacing its completion tokens.

    Whatever does not look as expected (more than one turn, loss masks, unknown columns) is encoded in full.
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
            return self._with_completion(completion)
        encoded = self._encode(sample, template)
        self._key = None
        if completion is not None and self._is_plain(encoded, completion):
            self._key, self._first = key, dict(encoded)  # a collator takes entries out of what it gets
            self._prompt_tokens = len(encoded["input_ids"]) - len(completion)
        return encoded

    def _is_plain(self, encoded: dict[str, Any], completion: list[int]) -> bool:
        prompt = len(encoded["input_ids"]) - len(completion)
        return (
            set(encoded) - {"_extra_kwargs"} <= self.COLUMNS
            and encoded["input_ids"][prompt:] == completion
            and encoded["labels"] == [IGNORED] * prompt + completion
        )

    def _with_completion(self, completion: list[int]) -> dict[str, Any]:
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
