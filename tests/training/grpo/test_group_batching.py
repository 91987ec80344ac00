"""What members of a group share, and that nobody downstream can spoil it for the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")


def sample(prompt: str, completion: list[int]) -> Any:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "x"}]
    empty = dict.fromkeys(("videos", "audios", "tools", "objects", "extra", "response_loss_mask"))
    return SimpleNamespace(messages=turns, images=["a.png"], response_token_ids=completion, **empty)


def test_what_a_collator_takes_out_is_still_there_for_the_next_member() -> None:
    from geozero.common import process

    process.prepare()
    from geozero.training.grpo.group_batching import IGNORED, EncodingCache

    calls: list[Any] = []

    def encode(one: Any, template: Any) -> dict[str, Any]:
        calls.append(one)
        ids = [7, 8, 9, *one.response_token_ids]
        labels = [IGNORED] * 3 + one.response_token_ids
        return {"input_ids": ids, "labels": labels, "image_grid_thw": "grid", "pixel_values": "pixels"}

    shared, template = EncodingCache(encode), SimpleNamespace(mode="train")
    first = shared(sample("q", [1, 2]), template)
    first.clear()  # the batch that it was part of has been collated
    second = shared(sample("q", [3]), template)
    assert (second["input_ids"], second["image_grid_thw"], second["pixel_values"]) == ([7, 8, 9, 3], "grid", "pixels")
    second.clear()
    assert shared(sample("q", [4, 5]), template)["labels"] == [IGNORED] * 3 + [4, 5]
    assert len(calls) == 1
    assert shared(sample("another", [4]), template)["input_ids"] == [7, 8, 9, 4]
    assert len(calls) == 2


def test_groups_without_a_signal_give_way_to_other_prompts_that_have_one() -> None:
    import torch

    from geozero.common import process

    process.prepare()
    from geozero.training.grpo.group_batching import replace_zero_std_groups

    def groups(*prompts: str) -> list[Any]:
        return [sample(prompt, [k]) for prompt in prompts for k in range(2)]

    def values(*answers: float) -> torch.Tensor:
        return torch.tensor([[answer, 0.1 * i] for i, answer in enumerate(answers)])

    here, further = groups("a", "b", "c", "d"), groups("a", "e", "f", "f", "g")
    rewards = values(0, 1, 1, 1, 0, 0, 1, 1)  # only the first differs in R_a
    others = values(1, 0, 0, 0, 0, 1, 1, 0, 1, 0)
    kept, result = replace_zero_std_groups(here, rewards, further, others, 2)
    # "a" stands in the batch already, "e" has no signal, the second "f" is a repetition; "d" stays as it was.
    assert [s.messages[0]["content"] for s in kept[::2]] == ["a", "f", "g", "d"]
    assert torch.equal(result, torch.cat([rewards[:2], others[4:6], others[8:], rewards[6:]]))
    assert len(here) == 8 and torch.equal(rewards[2:4, 0], torch.ones(2))  # what was given is as it was
