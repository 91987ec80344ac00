"""Seeds, the sampler inside transformers, and how a turn is split."""

from __future__ import annotations

import pytest

from geozero.engines.base import Request, SamplingParams, first_seed, request_seed, rollout_seed
from geozero.engines.prompts import content_parts

torch = pytest.importorskip("torch")


def test_seeds_are_stable_and_differ() -> None:
    assert request_seed(7, "a") == 1583021495  # pinned: a store must go on where it was after an update
    assert len({request_seed(base, name) for base in (0, 1) for name in "abc"}) == 6
    assert rollout_seed(7, "a", 3) == request_seed(7, "a") + 3
    request = Request("a", [], b"")
    assert first_seed(request, SamplingParams(seed=7)) == request_seed(7, "a")
    assert first_seed(Request("a", [], b"", seed=5), SamplingParams(seed=7)) == 5


def draw(seeds: list[int], logits: list[float], steps: int = 1, **options: float) -> list[list[int]]:
    from geozero.engines.seeded_sampler import SeededSampler

    sampler = SeededSampler([0], seeds, steps, **options)
    scores = torch.tensor([logits] * len(seeds))
    return [sampler(torch.zeros(len(seeds), 1), scores).argmax(-1).tolist() for _ in range(steps)]


def test_the_sampler_draws_by_the_row_seed_alone() -> None:
    logits = [9.0, 0.0, 1.0, 2.0, 1.0]
    together = draw([1, 2, 3], logits, steps=20)
    alone = draw([2], logits, steps=20)
    assert [row[1] for row in together] == [row[0] for row in alone]
    assert len({tuple(row[i] for row in together) for i in range(3)}) == 3


def test_the_sampler_draws_with_the_right_frequencies_and_never_a_suppressed_token() -> None:
    (drawn,) = draw(list(range(4000)), [50.0, 0.0, 1.0, float("-inf")], temperature=1.0)
    share = drawn.count(2) / len(drawn)
    assert set(drawn) == {1, 2}
    assert abs(share - 0.7311) < 0.03  # e / (1 + e), four standard errors


def test_top_p_keeps_the_smallest_nucleus() -> None:
    (drawn,) = draw(list(range(500)), [0.0, 3.0, 2.9, -1.0], top_p=0.6)
    assert set(drawn) == {1, 2}
    (drawn,) = draw(list(range(500)), [0.0, 3.0, 2.9, -1.0], top_p=0.4)
    assert set(drawn) == {1}


def test_top_k_keeps_the_likeliest_before_the_nucleus() -> None:
    (drawn,) = draw(list(range(500)), [0.0, 3.0, 2.9, 2.8], top_k=2)
    assert set(drawn) == {1, 2}
    (drawn,) = draw(list(range(500)), [0.0, 3.0, 2.9, 2.8], top_k=2, top_p=0.5)  # of the two that are left
    assert set(drawn) == {1}
    assert draw([1, 2, 3], [0.0, 1.0, 2.0], steps=5, top_k=0) == draw([1, 2, 3], [0.0, 1.0, 2.0], steps=5)


def test_a_low_temperature_sharpens() -> None:
    (drawn,) = draw(list(range(300)), [0.0, 0.0, 1.0, 0.0], temperature=0.05)
    assert set(drawn) == {2}


def test_a_turn_is_split_at_the_image() -> None:
    assert content_parts("<image>What?", {"type": "image"}) == [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert content_parts("no image", {}) == [{"type": "text", "text": "no image"}]
