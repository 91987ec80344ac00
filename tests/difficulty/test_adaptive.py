"""Adaptive sampling: the rule keeps its bound, stops where it should, is frozen once, and selection accepts it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from difficulty_world import CLASSES, Opener, make_corpus, make_model, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from geozero import params
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.difficulty.adaptive import optimal_stopping, rule_file, stopping_rule
from geozero.difficulty.answer_store import answer_files, current, pass_rates
from geozero.difficulty.sampling import Summary
from geozero.difficulty.selection.select import select
from geozero.engines.base import Request
from geozero.params import Adaptive, Select

K = 8
KIND = "vqa/questions/"


def learned(rates: list[float], n: int = 400, **options: Any) -> tuple[stopping_rule.Rule, Any, Any]:
    """A rule learned on samples of these success rates, and answers of others like them to replay."""
    rng = np.random.default_rng(0)
    right = rng.random((2 * n, K)) < rng.choice(rates, (2 * n, 1))
    none = np.zeros((2 * n, K), bool)
    asked = Adaptive(**{"error": 0.02, "pilot": 0.5, **options})
    rule = stopping_rule.fit([KIND] * n, right[:n], none[:n], {KIND: 2 * n}, K, Select(), asked)
    return rule, right[n:], none[n:]


@pytest.mark.parametrize("error", [0.01, 0.05])
def test_the_bound_holds_on_answers_that_the_rule_has_not_seen(error: float) -> None:
    rule, right, alike = learned([0.0, 0.2, 0.5, 0.9, 1.0], n=3000, error=error)
    used, changed, _ = stopping_rule.replay(rule, [KIND] * len(right), right, alike)
    assert changed.mean() <= error + 3 * (error / len(right)) ** 0.5  # three standard errors
    assert used.mean() < 0.75 * K
    assert rule.checked["changed"] <= 2 * error and rule.checked["n"] == 3000


def test_easy_kinds_stop_at_once_and_open_ones_go_on() -> None:
    rule, *_ = learned([1.0])
    assert rule.decided(KIND, 1, 1, False) and not rule.decided(KIND, 2, 1, False)
    rule, *_ = learned([0.6])
    assert not rule.decided(KIND, 3, 2, False) and rule.decided(KIND, K, 4, False)


def test_a_tighter_bound_asks_more() -> None:
    used = []
    for error in (0.001, 0.02, 0.2):
        rule, right, alike = learned([0.0, 0.3, 0.7, 1.0], error=error)
        used.append(stopping_rule.replay(rule, [KIND] * len(right), right, alike)[0].mean())
    assert used[0] > used[1] > used[2] and used[0] < K


def test_never_fewer_than_the_first_answers() -> None:
    rule, right, alike = learned([1.0], first=3)
    assert set(stopping_rule.replay(rule, [KIND] * len(right), right, alike)[0]) == {3}


def test_wrong_answers_that_are_all_alike_are_never_cut_short() -> None:
    rule, *_ = learned([0.0])
    assert rule.decided(KIND, 2, 0, False) and not rule.decided(KIND, 7, 0, True)


def test_an_unknown_kind_takes_the_rule_of_its_source_or_task_or_is_sampled_in_full() -> None:
    rule, *_ = learned([1.0])
    assert rule.decided("vqa/questions/count", 1, 1, False) and rule.decided("vqa/others/", 1, 1, False)
    assert not rule.decided("grounding/boxes/", 7, 7, False)


@settings(max_examples=25)
@given(
    st.lists(st.floats(0.01, 1), min_size=K + 1, max_size=K + 1),
    st.floats(0.0, 0.5),
    st.integers(1, 4),
)
def test_the_expected_error_is_what_a_simulation_finds(weights: list[float], price: float, first: int) -> None:
    """The forward recursion against drawing without replacement, answer by answer."""
    shares = np.array(weights) / np.sum(weights)
    table = optimal_stopping.Table(shares, Select(), Adaptive(first=first))
    stop = table.stops(price)
    assert not stop[:first].any() and stop[K].all()
    rng, wrong, n = np.random.default_rng(1), 0, 1000
    for t in rng.choice(K + 1, n, p=shares):
        answers = rng.permutation([1] * t + [0] * (K - t))
        length = next(i for i in range(1, K + 1) if stop[i, answers[:i].sum()])
        now = optimal_stopping.decision(int(answers[:length].sum()), length, 0.75, 0.5)
        then = optimal_stopping.decision(int(t), K, 0.75, 0.5)
        wrong += optimal_stopping.cost(now, then) == 1
    assert abs(table.expected(stop) - wrong / n) < 0.06


def test_k_beyond_the_tables_is_refused() -> None:
    with pytest.raises(InputError, match="at most 64"):
        stopping_rule.fit([], np.zeros((0, 65), bool), np.zeros((0, 65), bool), {}, 65, Select(), Adaptive())


def test_a_rule_is_frozen_by_whoever_comes_first_and_read_back_whole(tmp_path: Path) -> None:
    rule, *_ = learned([0.1, 0.9])
    assert rule_file.save(tmp_path, rule) == rule == rule_file.load(tmp_path, rule.key)
    later = dataclasses.replace(rule, checked={})
    assert rule_file.save(tmp_path, later) == rule
    assert [p.name for p in tmp_path.iterdir()] == [rule_file.file_name(rule.key)]
    assert rule_file.load(tmp_path, "other") is None
    (tmp_path / rule_file.file_name(rule.key)).write_text("{}")
    with pytest.raises(InputError, match="unreadable stopping rule"):
        rule_file.load(tmp_path, rule.key)


# --- in the store ---

SETTINGS = Adaptive(error=0.05, pilot=0.3)


def clear_cut(request: Request, seed: int) -> str:
    """Scenes are always right, questions always wrong in another way each time, boxes right half of the time."""
    kind, number = request.id[-4], int(request.id[-3:])
    return {
        "s": CLASSES[number % 4],
        "q": f"no {seed}",
        "c": "many green trees stand in a forest",
        "g": "[250, 250, 750, 750]" if seed % 2 else "[0, 0, 100, 100]",
    }[kind]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus", 30)


def run(corpus: Path, store: Path, rule: Any = clear_cut, **options: Any) -> tuple[Summary, Opener]:
    opener = Opener(rule)
    model = make_model(store.parent / "model")
    options = {"k": K, "chunk": 40, "adaptive": SETTINGS, "open_engine": opener, **options}
    return sample(corpus, [model], store, **options), opener


def answers_of(store: Path) -> Counter[str]:
    (key,) = current(store)["fingerprints"]
    rows = [row for path in answer_files(store / str(key)) for row in pq.read_table(path).to_pylist()]
    assert len({(r["id"], r["rollout"]) for r in rows}) == len(rows)
    return Counter(r["id"] for r in rows)


def test_decided_samples_get_no_further_answers(corpus: Path, tmp_path: Path) -> None:
    done, opener = run(corpus, tmp_path / "store")
    counts = answers_of(tmp_path / "store")
    assert done.n_new == counts.total() == done.n_answers == len(opener.asked) < 120 * K
    for s in Corpus(corpus).samples():
        if s.task == "caption" or stopping_rule.in_pilot(s.id, SETTINGS.pilot):
            assert counts[s.id] == K
        elif s.task in ("scene_cls", "vqa"):
            assert counts[s.id] < K
    assert done.adaptive is not None
    assert done.adaptive["saved_share"] == pytest.approx(1 - done.n_new / (120 * K))
    assert done.adaptive["error_bound"] == 0.05 and done.adaptive["pilot"] > 10
    again, nobody = run(corpus, tmp_path / "store")
    assert again.n_new == 0 and not nobody.opened and again.n_answers == done.n_answers


def test_whoever_listens_hears_the_end(corpus: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    run(corpus, tmp_path / "store", progress=lambda state: heard.append((state.done, state.total)))
    assert heard[-1][0] == heard[-1][1] and [done == total for done, total in heard].count(True) == 1


def test_no_sample_gets_more_than_k_answers(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "store", adaptive=Adaptive(error=0.05, first=3 * K, pilot=0.4))
    assert set(answers_of(tmp_path / "store").values()) == {K}


def test_selection_accepts_what_is_decided_and_tells_what_it_saved(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "store")
    found = select(corpus, tmp_path / "store", tmp_path / "easy", tmp_path / "hard", Select(unsolved_share=1.0))
    full, _ = run(corpus, tmp_path / "full", adaptive=None)
    same = select(corpus, tmp_path / "full", tmp_path / "easy2", tmp_path / "hard2", Select(unsolved_share=1.0))
    assert full.n_new == 120 * K and "adaptive" not in same
    assert found["adaptive"]["saved_share"] > 0.2
    for task in ("scene_cls", "vqa", "caption"):
        assert found["bands_by_task"][task] == same["bands_by_task"][task]
    assert {s.task for s in Corpus(tmp_path / "easy").samples()} >= {"scene_cls"}
    assert len(pass_rates(tmp_path / "store")) == 120


def test_other_thresholds_need_their_own_decisions(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "store")
    other = Select(easy=0.9)
    with pytest.raises(InputError, match=r"adaptively for easy 0\.75 .*run `geozero sample`"):
        select(corpus, tmp_path / "store", tmp_path / "easy", tmp_path / "hard", other)
    before = answers_of(tmp_path / "store")
    run(corpus, tmp_path / "store", thresholds=other)
    after = answers_of(tmp_path / "store")
    assert not before - after  # what was there stays
    select(corpus, tmp_path / "store", tmp_path / "easy", tmp_path / "hard", other)


def test_full_sampling_fills_up_an_adaptive_store(corpus: Path, tmp_path: Path) -> None:
    first, _ = run(corpus, tmp_path / "store")
    second, _ = run(corpus, tmp_path / "store", adaptive=None)
    assert first.n_new + second.n_new == 120 * K and set(answers_of(tmp_path / "store").values()) == {K}
    straight, opener = run(corpus, tmp_path / "straight", adaptive=None)
    assert straight.n_new == 120 * K and opener.opened


def test_workers_share_one_rule(corpus: Path, tmp_path: Path) -> None:
    for shard in range(3):
        run(corpus, tmp_path / "store", shard=f"{shard}/3")
    (directory,) = [p for p in (tmp_path / "store").iterdir() if p.is_dir()]
    assert len(list(directory.glob("_adaptive-*.json"))) == 1
    _, nobody = run(corpus, tmp_path / "store")
    assert not nobody.opened


def test_stopped_anywhere_it_goes_on_and_asks_nothing_twice(corpus: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(limit: int) -> Any:
        def tell(state: Any) -> None:
            if state.done >= limit:
                raise Stop

        return tell

    for limit in (50, 200, 60, 90):  # in the pilot and after it
        with pytest.raises(Stop):
            run(corpus, tmp_path / "store", progress=stop(limit))
    run(corpus, tmp_path / "store")
    run(corpus, tmp_path / "straight")
    assert answers_of(tmp_path / "store") == answers_of(tmp_path / "straight")


def test_a_sample_that_fails_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    done, _ = run(corpus, tmp_path / "store", rule=lambda r, seed: "!" if r.id[0] == "q" else clear_cut(r, seed))
    assert done.errors > 0
    again, nobody = run(corpus, tmp_path / "store")
    assert again.n_new == 0 and not nobody.opened
    found = select(corpus, tmp_path / "store", tmp_path / "e", tmp_path / "h", Select(unsolved_share=1.0))
    assert found["bands"]["unreadable"] == 30


def test_a_missing_answer_is_missed(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "store")
    (key,) = current(tmp_path / "store")["fingerprints"]
    answer_files(tmp_path / "store" / str(key))[-1].unlink()
    with pytest.raises(InputError, match="or are decided"):
        select(corpus, tmp_path / "store", tmp_path / "easy", tmp_path / "hard")
    run(corpus, tmp_path / "store")
    select(corpus, tmp_path / "store", tmp_path / "easy", tmp_path / "hard", Select(unsolved_share=1.0))


def test_the_parameter_is_off_by_default_and_checked() -> None:
    assert params.Sampling().adaptive is None
    assert params.Sampling.model_validate({"adaptive": {}}).adaptive == Adaptive()
    with pytest.raises(ValueError, match="error"):
        params.Sampling.model_validate({"adaptive": {"error": 0}})
    assert json.loads(Adaptive().model_dump_json())["error"] == 0.02


@pytest.mark.parametrize("world", ["uniform", "spikes", "half at 0"])
def test_the_bound_holds_with_many_small_kinds(world: str) -> None:
    """200 kinds of four pilot samples each: by themselves they would seem to be decided sooner than they are."""
    rng, n = np.random.default_rng(1), 20_000
    rates = {
        "uniform": rng.random(n),
        "spikes": rng.choice([0, 0.5, 0.75, 1.0], n),
        "half at 0": np.where(rng.random(n) < 0.5, 0, rng.uniform(0.6, 0.8, n)),
    }[world]
    kinds = np.array([f"vqa/s{i}/q" for i in rng.integers(0, 200, n)])
    right, pilot, alike = rng.random((n, K)) < rates[:, None], rng.random(n) < Adaptive().pilot, np.zeros((n, K), bool)
    everyone = dict(Counter(kinds.tolist()))
    rule = stopping_rule.fit(kinds[pilot].tolist(), right[pilot], alike[pilot], everyone, K, Select(), Adaptive())
    rest = np.flatnonzero(~pilot)[:8000]
    used, changed, _ = stopping_rule.replay(rule, kinds[rest].tolist(), right[rest], alike[rest])
    assert changed.mean() <= 0.02 + 3 * (0.02 / len(rest)) ** 0.5 and used.mean() < 0.75 * K


def test_the_rule_does_not_depend_on_which_worker_comes_first(corpus: Path, tmp_path: Path) -> None:
    rules = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 1, 0))):
        for shard in order:
            run(corpus, tmp_path / name, shard=f"{shard}/3")
        (file,) = (tmp_path / name).glob("*/_adaptive-*.json")
        rules.append(file.read_text())
        found = answers_of(tmp_path / name)
    run(corpus, tmp_path / "whole")
    (file,) = (tmp_path / "whole").glob("*/_adaptive-*.json")
    assert rules[0] == rules[1] == file.read_text() and found == answers_of(tmp_path / "whole")
