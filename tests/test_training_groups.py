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
    from geozero import process

    process.prepare()
    from geozero.training.groups import IGNORED, SharedEncoding

    calls: list[Any] = []

    def encode(one: Any, template: Any) -> dict[str, Any]:
        calls.append(one)
        ids = [7, 8, 9, *one.response_token_ids]
        labels = [IGNORED] * 3 + one.response_token_ids
        return {"input_ids": ids, "labels": labels, "image_grid_thw": "grid", "pixel_values": "pixels"}

    shared, template = SharedEncoding(encode), SimpleNamespace(mode="train")
    first = shared(sample("q", [1, 2]), template)
    first.clear()  # the batch that it was part of has been collated
    second = shared(sample("q", [3]), template)
    assert (second["input_ids"], second["image_grid_thw"], second["pixel_values"]) == ([7, 8, 9, 3], "grid", "pixels")
    second.clear()
    assert shared(sample("q", [4, 5]), template)["labels"] == [IGNORED] * 3 + [4, 5]
    assert len(calls) == 1
    assert shared(sample("another", [4]), template)["input_ids"] == [7, 8, 9, 4]
    assert len(calls) == 2
