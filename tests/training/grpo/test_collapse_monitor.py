"""Collapse guards, the curriculum, and which checkpoint becomes the model; no trainer is started."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reward_samples import make as make_sample
from training_stage import write_checkpoint

from geozero.common.errors import InputError
from geozero.corpus.sample import Sample
from geozero.params import Guards
from geozero.training import checkpoints
from geozero.training.grpo import curriculum
from geozero.training.grpo.collapse_monitor import GUARDED_METRICS, VIOLATIONS, CollapseMonitor, CollapseStop
from geozero.training.grpo.rewards import distinct
from geozero.training.metrics import MetricsForwarder, read


def guards(**bounds: Any) -> Guards:
    quiet = {name: {"limit": None} for name in GUARDED_METRICS}
    return Guards.model_validate({"window": 2, **quiet, **bounds})


# -- guards ------------------------------------------------------------------------------------------------------


def test_a_bound_is_judged_on_the_mean_of_a_full_window(tmp_path: Path) -> None:
    monitor = CollapseMonitor(guards(thought_words={"limit": 5}), tmp_path)
    assert monitor.check(1, {"thought_words": 1.0}) == (0, [])  # the window is not full
    n, found = monitor.check(2, {"thought_words": 8.0})
    assert (n, [c.value for c in found], found[0].metric) == (1, [4.5], "thought_words")
    assert monitor.check(3, {"thought_words": 1.0}) == (1, [])  # said once
    assert monitor.check(4, {"thought_words": 9.0}) == (0, [])  # exactly at the limit
    assert monitor.check(5, {"thought_words": 0.0})[1][0].step == 5  # crossed anew
    assert [row["step"] for row in json.loads((tmp_path / "guards.json").read_text())] == [2, 5]
    assert "4.5 words per thought" in found[0].reason and "below 5" in found[0].reason


@pytest.mark.parametrize("name", list(GUARDED_METRICS))
def test_every_watched_metric_has_its_bad_side(name: str, tmp_path: Path) -> None:
    watched = GUARDED_METRICS[name]
    low, high = 0.1, 0.9
    monitor = CollapseMonitor(guards(**{name: {"limit": 0.5}}), tmp_path)
    bad, good = (low, high) if watched.side == "below" else (high, low)
    for step in (1, 2):
        assert monitor.check(step, {watched.logged: good}) == (0, [])
    monitor.check(3, {watched.logged: bad})
    assert monitor.check(4, {watched.logged: bad})[0] == 1
    assert monitor.check(5, {"another": bad}) == (0, [])  # not logged: not judged


def test_a_stop_is_an_input_error_that_names_the_way_out_and_stays(tmp_path: Path) -> None:
    bounds = guards(window=1, well_formed={"limit": 0.5, "action": "stop"})
    monitor = CollapseMonitor(bounds, tmp_path)
    _, found = monitor.check(7, {"well_formed": 0.25})
    with pytest.raises(CollapseStop, match=r"step 7: 0.25 well-formed .*guards.well_formed.action to warn"):
        monitor.stop_on(found)
    with pytest.raises(CollapseStop, match="step 7"):
        CollapseMonitor(bounds, tmp_path)
    for other in ({"limit": 0.5, "action": "warn"}, {"limit": 0.2, "action": "stop"}, {"action": "stop"}):
        CollapseMonitor(guards(window=1, well_formed=other), tmp_path)  # whoever loosens the bound may go on
    CollapseMonitor(bounds, tmp_path / "another")


def test_a_resumed_run_has_its_window_again(tmp_path: Path) -> None:
    bounds = guards(distinct={"limit": 0.5})
    past = [{"step": 1, "distinct": 0.9}, {"step": 2, "distinct": 0.4}, {"step": 2, "eval_reward": 1.0}]
    assert CollapseMonitor(bounds, tmp_path, past).check(3, {"distinct": 0.4})[0] == 1
    crossed = [{"step": 1, "distinct": 0.1}, {"step": 2, "distinct": 0.1}]
    assert CollapseMonitor(bounds, tmp_path, crossed).check(3, {"distinct": 0.1}) == (1, [])  # said before the kill


def test_the_curve_carries_the_number_of_crossed_bounds(tmp_path: Path) -> None:
    lines = [{"distinct": 0.1, "global_step/max_steps": f"{step}/9"} for step in (1, 2)]
    lines.insert(1, {"eval_answer_reward": 0.5, "global_step/max_steps": "1/9"})
    (tmp_path / "logging.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    forwarded: list[tuple[int, Any]] = []
    said: list[str] = []
    bounds = guards(distinct={"limit": 0.5})
    MetricsForwarder(tmp_path, bounds, lambda *row: forwarded.append(row), said.append).forward()
    assert forwarded[2] == (2, {"distinct": 0.1, VIOLATIONS: 1}) and len(forwarded) == 3
    assert said == ["guard: step 2: 0.1 distinct word trigrams: all thoughts become the same (below 0.5)"]
    wanted = [
        {"step": 1, "distinct": 0.1},
        {"step": 1, "eval_answer_reward": 0.5},
        {"step": 2, "distinct": 0.1, VIOLATIONS: 1},
    ]
    assert read(tmp_path / "metrics.jsonl") == wanted
    MetricsForwarder(tmp_path, on_metrics=lambda *row: pytest.fail(f"{row} came twice")).forward()


def test_a_stop_comes_after_its_row_and_loses_none_behind_it(tmp_path: Path) -> None:
    lines = [json.dumps({"well_formed": 0.1, "global_step/max_steps": f"{step}/9"}) + "\n" for step in (1, 2, 3)]
    (tmp_path / "logging.jsonl").write_text("".join(lines))
    steps: list[int] = []
    bounds = guards(well_formed={"limit": 0.5, "action": "stop"})
    forwarder = MetricsForwarder(tmp_path, bounds, lambda step, _: steps.append(step))
    with pytest.raises(CollapseStop, match="step 2"):
        forwarder.forward()
    assert steps == [1, 2]
    with pytest.raises(CollapseStop, match="step 2"):
        MetricsForwarder(tmp_path, bounds)
    loosened = guards(well_formed={"limit": 0.5})
    MetricsForwarder(tmp_path, loosened, lambda step, _: steps.append(step)).forward()
    assert steps == [1, 2, 3]


def test_distinct_trigrams() -> None:
    assert distinct(["a b c d <answer>x</answer>", "a b c d"]) == 0.5
    assert distinct(["a b c", "d e f <answer></answer>"]) == 1.0
    assert distinct(["<answer>x</answer>", ""]) == 0.0


# -- curriculum --------------------------------------------------------------------------------------------------


def samples(n: int) -> list[Sample]:
    return [make_sample("vqa", f"s{i}") for i in range(n)]


def test_easy_ones_come_first_and_ties_by_a_stable_hash() -> None:
    rates = {f"s{i}": (i % 4) / 4 for i in range(40)} | {"elsewhere": 1.0}
    easy = curriculum.ordered(samples(40), rates, "easy_first", 40)
    found = [rates[s.id] for s in easy]
    assert found == sorted(found, reverse=True) and len(set(found)) == 4
    assert easy == curriculum.ordered(reversed(samples(40)), rates, "easy_first", 40)
    hard = curriculum.ordered(samples(40), rates, "hard_first", 40)
    assert [rates[s.id] for s in hard] == sorted(found)
    unknown = curriculum.ordered([*samples(2), make_sample("vqa", "new")], {"s0": 0.5, "s1": 0.1}, "hard_first", 3)
    assert unknown[0].id == "new"


def test_a_short_run_meets_all_rates() -> None:
    rates = {f"s{i}": (i % 4) / 4 for i in range(400)}
    few = curriculum.ordered(samples(400), rates, "easy_first", 40)
    assert len(few) == 40
    assert {rates[s.id] for s in few} == {0.0, 0.25, 0.5, 0.75}


def test_spare_samples_lie_behind_the_run_and_between_its_rates() -> None:
    rates = {f"s{i}": i / 60 for i in range(60)}
    found = [rates[s.id] for s in curriculum.ordered(samples(60), rates, "hard_first", 20, spare=40)]
    assert len(set(found)) == 60
    own, spare = found[:20], found[20:]
    assert own == sorted(own) and spare == sorted(spare)
    assert max(b - a for a, b in pairwise(own)) <= 3.01 / 60  # every third of all rates
    assert curriculum.ordered(samples(15), rates, "hard_first", 20, spare=40) == curriculum.ordered(
        samples(15), rates, "hard_first", 20
    )


def resampling(rows: int, shuffled: bool, **other: int) -> curriculum.Resampling:
    settings = {"prompts": 4, "steps": 5, "draws": 2, "seed": 7} | other
    return curriculum.Resampling(rows=rows, shuffled=shuffled, **settings)


def test_an_ordered_step_draws_spare_prompts_about_as_hard_as_its_own() -> None:
    spare = resampling(60, shuffled=False)  # rows 0 to 19 are the run's
    drawn = [spare.drawn(step, draw) for step in range(5) for draw in (1, 2)]
    assert [i for rows in drawn for i in rows] == list(range(20, 60))


def test_an_ordered_step_without_spare_prompts_draws_the_next_steps() -> None:
    none = resampling(20, shuffled=False)
    assert none.drawn(0, 1) == [4, 5, 6, 7] and none.drawn(0, 2) == [8, 9, 10, 11]
    assert none.drawn(4, 1) == [0, 1, 2, 3]
    assert resampling(8, shuffled=False).drawn(2, 1) == [4, 5, 6, 7]  # the second epoch's first step


def test_a_shuffled_run_draws_everything_before_anything_twice() -> None:
    shuffled = resampling(40, shuffled=True)
    drawn = [i for step in range(5) for draw in (1, 2) for i in shuffled.drawn(step, draw)]
    assert sorted(drawn) == list(range(40)) != drawn
    assert shuffled.drawn(5, 1) == drawn[:4]
    assert resampling(40, shuffled=True, seed=8).drawn(0, 1) != drawn[:4]
    assert len(resampling(3, shuffled=True).drawn(0, 1)) == 4  # fewer rows than a step has prompts


def test_pass_rates_are_read_from_beside_the_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "geozero-hard"
    with pytest.raises(InputError, match=r"no pass rates .*order to shuffled"):
        curriculum.rates_file(corpus)
    pq.write_table(pa.table({"id": ["a", "b"], "p": [0.25, None]}), tmp_path / curriculum.RATES)
    assert curriculum.read_rates(curriculum.rates_file(corpus)) == {"a": 0.25}
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / curriculum.RATES)
    with pytest.raises(InputError, match="no readable table"):
        curriculum.read_rates(curriculum.rates_file(corpus))
    (tmp_path / curriculum.RATES).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="no readable table"):
        curriculum.read_rates(curriculum.rates_file(corpus))


# -- the best checkpoint -----------------------------------------------------------------------------------------


def validated(run: Path, scores: dict[int, float], kept: tuple[int, ...]) -> None:
    history = [{"step": step, "eval_answer_reward": score} for step, score in scores.items()]
    for step in kept:
        path = write_checkpoint(run, step)
        past = [{"step": 1, "loss": 1.0}, *(row for row in history if row["step"] <= step)]
        (path / checkpoints.STATE).write_text(json.dumps({"global_step": step, "log_history": past}))


def test_the_best_on_val_that_is_still_there(tmp_path: Path) -> None:
    validated(tmp_path, {2: 0.5, 4: 0.9, 6: 0.7, 8: 0.7}, (6, 8))
    found = checkpoints.best(tmp_path, "answer_reward")
    assert found is not None and found.step == 8  # 4 is gone; of two alike the later one
    write_checkpoint(tmp_path, 4)
    found = checkpoints.best(tmp_path, "answer_reward")
    assert found is not None and found.step == 4


def test_no_best_without_a_validation(tmp_path: Path) -> None:
    assert checkpoints.best(tmp_path, "answer_reward") is None
    write_checkpoint(tmp_path, 3)
    assert checkpoints.best(tmp_path, "answer_reward") is None
