"""Pools of prompts: which rows a step draws, what moves a prompt, and that a resumed run draws the same."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from geozero.params import A2grpo
from geozero.training.grpo.pools import NAMES, PoolLog, Pools

RATES = [0.9] * 20 + [0.5] * 20 + [0.0] * 20
SHARES = (0.25, 0.5, 0.25)


def kinds(pools: Pools, rows: list[int]) -> Counter[str]:
    return Counter(NAMES[pools.pool(row)] for row in rows)


def test_a_step_draws_from_each_pool_by_its_share() -> None:
    pools = Pools(RATES, SHARES, 7)
    rows = pools.draw(0, 8)
    assert kinds(pools, rows) == {"easy": 2, "medium": 4, "hard": 2} and len(set(rows)) == 8
    assert rows == Pools(RATES, SHARES, 7).draw(0, 8) != Pools(RATES, SHARES, 8).draw(0, 8)
    assert kinds(pools, pools.draw(0, 3)).total() == 3


def test_the_latest_group_decides() -> None:
    pools = Pools([None, 0.0, 1.0], SHARES, 7)
    assert [NAMES[pools.pool(row)] for row in range(3)] == ["medium", "hard", "easy"]
    pools.update(0, [1, 2, 0], [0.8, 0.5, 0.25])
    assert [NAMES[pools.pool(row)] for row in range(3)] == ["hard", "easy", "medium"]


def test_every_prompt_of_a_pool_is_drawn_before_one_is_drawn_again() -> None:
    pools, seen = Pools(RATES, SHARES, 7), Counter[int]()
    for step in range(10):
        rows = pools.draw(step, 8)
        seen.update(rows)
        pools.update(step, rows, [pools.rates[row] or 0.0 for row in rows])
    assert {seen[row] for row in range(20, 40)} == {2} and {seen[row] for row in (*range(20), *range(40, 60))} == {1}


def test_an_empty_pool_is_filled_up_by_the_others() -> None:
    pools = Pools([0.5] * 3 + [0.0] * 30, SHARES, 7)
    assert kinds(pools, pools.draw(0, 8)) == {"medium": 3, "hard": 5}
    assert len(Pools([0.5, 0.0], SHARES, 7).draw(0, 5)) == 5


def run(directory: Path, steps: range, mean: random.Random) -> list[list[int]]:
    """Train these steps; a group's mean is drawn from the generator."""
    pools, log, drawn = Pools(RATES, SHARES, 7), PoolLog(directory), []
    log.replay(pools, steps.start)
    for step in steps:
        rows = pools.draw(step, 8)
        means = [mean.random() for _ in rows]
        pools.update(step, rows, means)
        log.write(step, rows, means)
        drawn.append(rows)
    return drawn


def test_a_resumed_run_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    (tmp_path / "straight").mkdir()
    straight = run(tmp_path / "straight", range(12), random.Random(1))
    mean = random.Random(1)
    first = run(tmp_path, range(8), mean)  # the last two steps are behind the last checkpoint
    with (tmp_path / "pools.jsonl").open("a") as file:
        file.write('{"step": 8, "ro')  # a kill
    again = random.Random(1)
    for _ in range(6 * 8):
        again.random()
    assert first[:6] + run(tmp_path, range(6, 12), again) == straight
    whole, broken = Pools(RATES, SHARES, 7), Pools(RATES, SHARES, 7)
    PoolLog(tmp_path / "straight").replay(whole, 12)
    PoolLog(tmp_path).replay(broken, 12)
    assert whole.rates == broken.rates


def test_pools_exclude_resampling_and_are_shares_of_one_whole() -> None:
    assert A2grpo(steps=1, order="pools").identity()["order"] == "pools"
    assert "pool_easy" not in A2grpo(steps=1).identity()  # finished runs keep their fingerprints
    for wrong in ({"order": "pools", "resample": 1}, {"pool_easy": 0.6, "pool_hard": 0.6}):
        with pytest.raises(ValidationError):
            A2grpo(steps=1, **wrong)
