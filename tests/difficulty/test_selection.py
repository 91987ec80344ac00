"""Selection: bands, captions against their source's median, balance, the unsolved share, suspects, clear errors."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from difficulty_world import Opener, by_number, make_corpus, make_model, sample
from hypothesis import given
from hypothesis import strategies as st

from geozero import params
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.difficulty.selection import histogram
from geozero.difficulty.selection.balance import balanced
from geozero.difficulty.selection.select import select


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of 36 samples a task and its complete store: sample i has p = (i mod 9) / 8."""
    root = tmp_path_factory.mktemp("sampled")
    corpus = make_corpus(root / "corpus", 36)
    sample(corpus, [make_model(root / "model")], root / "store", k=8, open_engine=Opener(by_number))
    return corpus, root / "store"


def run(sampled: tuple[Path, Path], out: Path, **settings: Any) -> dict[str, Any]:
    return select(
        *sampled,
        out / "instruct",
        out / "hard",
        params.Select(**settings),
        metrics=out / "difficulty.json",
        plot=out / "difficulty.svg",
    )


def numbers_of(corpus: Path, task: str) -> set[int]:
    return {int(s.id[-3:]) % 9 for s in Corpus(corpus).samples() if s.task == task}


def test_easy_and_hard_by_pass_rate(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    found = run(sampled, tmp_path, unsolved_share=1.0)
    for task in ("scene_cls", "vqa", "grounding"):
        assert numbers_of(tmp_path / "instruct", task) == {6, 7, 8}
    assert numbers_of(tmp_path / "hard", "grounding") == {0, 1, 2, 3, 4}
    assert numbers_of(tmp_path / "hard", "vqa") == {1, 2, 3, 4}  # p = 0 and one answer: a suspect
    assert found["bands_by_task"]["vqa"] == {
        "easy": 12,
        "hard_learnable": 16,
        "hard_unsolved": 0,
        "suspect": 4,
        "unused": 4,
        "unreadable": 0,
    }
    written = json.loads((tmp_path / "difficulty.json").read_text())
    assert written == found and sum(written["bands"].values()) == written["n_samples"] == 144
    assert written["histogram"]["vqa"]["counts"] == [4] * 9
    assert (tmp_path / "difficulty.svg").read_text().startswith("<?xml")


def test_captions_succeed_above_the_median_of_their_source(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    found = run(sampled, tmp_path)
    # half of the rewards are 0 ("nothing at all" shares no word), so the median lies between the two captions
    assert 0 <= found["caption_medians"]["captions"] < 1
    assert numbers_of(tmp_path / "instruct", "caption") <= {6, 7, 8}


def test_suspects_are_listed_with_what_the_model_says_and_never_selected(
    sampled: tuple[Path, Path], tmp_path: Path
) -> None:
    run(sampled, tmp_path)
    listed = pq.read_table(tmp_path / "suspect.parquet").to_pylist()
    with (tmp_path / "suspect.csv").open() as file:
        assert list(csv.DictReader(file)) == listed
    assert {r["task"] for r in listed} == {"vqa"} and {r["model_answer"] for r in listed} == {"no"}
    chosen = {s.id for name in ("instruct", "hard") for s in Corpus(tmp_path / name).samples()}
    assert len(listed) == 4 and not chosen & {r["id"] for r in listed}


def test_learnable_first_then_unsolved_up_to_the_share(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    small = run(sampled, tmp_path / "small", hard_size=20)
    assert small["hard"]["n"] == 20 and small["hard"]["unsolved_share"] == 0
    assert small["hard"]["by_task"] == {"caption": 5, "grounding": 5, "scene_cls": 5, "vqa": 5}
    assert {small["hard"]["by_source"][f"scenes{i}"] for i in range(2)} == {2, 3}
    capped = run(sampled, tmp_path / "capped", unsolved_share=0.05)
    assert 0 < capped["hard"]["unsolved_share"] <= 0.05
    none = run(sampled, tmp_path / "none", unsolved_share=0.0)
    assert none["hard"]["unsolved_share"] == 0


def test_selection_goes_by_stable_hash(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    def ids(out: Path) -> set[str]:
        return {s.id for s in Corpus(out).samples()}

    run(sampled, tmp_path / "a", hard_size=12, instruct_size=10)
    run(sampled, tmp_path / "b", hard_size=12, instruct_size=10)
    run(sampled, tmp_path / "c", hard_size=16, instruct_size=20)
    assert ids(tmp_path / "a/hard") == ids(tmp_path / "b/hard") < ids(tmp_path / "c/hard")
    assert ids(tmp_path / "a/instruct") < ids(tmp_path / "c/instruct") and len(ids(tmp_path / "a/instruct")) == 10


def test_run_again_it_leaves_the_corpora_alone(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    run(sampled, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "hard").iterdir()}
    run(sampled, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "hard").iterdir()}
    run(sampled, tmp_path, hard_size=4)
    assert len(Corpus(tmp_path / "hard")) == 4


def test_the_table_of_pass_rates(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    run(sampled, tmp_path, hard_size=8)
    table = pq.read_table(tmp_path / "pass_rates.parquet").to_pylist()
    assert len(table) == 144
    assert Counter(r["selected"] for r in table)["hard"] == 8
    assert {r["p"] for r in table if r["id"] == "g005"} == {5 / 8} and {r["n"] for r in table} == {8}


def test_images_come_along_and_only_those_asked_about(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    run(sampled, tmp_path, hard_size=4)
    hard = Corpus(tmp_path / "hard")
    assert {r["image_id"] for r in hard.image_rows()} == {s.image_id for s in hard.samples()}


def test_folds_are_read_from_their_own_directories(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 12)
    models = [make_model(tmp_path / f"m{i}", bytes([i])) for i in range(2)]
    sample(corpus, models, tmp_path / "store", k=8, open_engine=Opener(by_number))
    crossed = run((corpus, tmp_path / "store"), tmp_path / "crossed")
    sample(corpus, models[:1], tmp_path / "single", k=8, open_engine=Opener(by_number))
    assert crossed["bands"] == run((corpus, tmp_path / "single"), tmp_path / "plain")["bands"]


def test_what_does_not_fit_is_refused_in_one_line(sampled: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, store = sampled
    with pytest.raises(InputError, match="no answer store"):
        run((corpus, tmp_path / "none"), tmp_path)
    stranger = make_corpus(tmp_path / "stranger", 3, tag="x")
    with pytest.raises(InputError, match="no answer to a sample of this corpus"):
        run((stranger, store), tmp_path)
    larger = make_corpus(tmp_path / "larger", 37)
    with pytest.raises(InputError, match="only 144 of 148 samples have all 8 answers"):
        run((larger, store), tmp_path)
    with pytest.raises(InputError, match="no training samples"):
        run((make_corpus(tmp_path / "test", 3, split="test"), store), tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "_current.json").write_text("{")
    with pytest.raises(InputError, match="unreadable answer store"):
        run((corpus, broken), tmp_path)


def test_a_selection_of_nothing_fails_but_leaves_the_numbers(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 3)
    model = make_model(tmp_path / "model")
    sample(corpus, [model], tmp_path / "store", k=2, open_engine=Opener(lambda request, seed: f"wrong {seed}"))
    with pytest.raises(InputError, match="no easy samples"):
        run((corpus, tmp_path / "store"), tmp_path)
    assert json.loads((tmp_path / "difficulty.json").read_text())["bands"]["easy"] == 0
    assert not (tmp_path / "instruct").exists()


cells = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), st.integers(0, 30), min_size=1, max_size=9
)


@given(cells, st.integers(0, 100))
def test_balance_takes_the_size_and_is_as_even_as_the_cells_allow(
    available: dict[tuple[str, str], int], size: int
) -> None:
    taken = balanced(available, size)
    assert sum(taken.values()) == min(size, sum(available.values()))
    assert all(0 <= taken.get(cell, 0) <= n for cell, n in available.items())
    tasks = {task for task, _ in available}
    sums = {t: sum(n for (task, _), n in taken.items() if task == t) for t in tasks}
    full = {t for t in tasks if sums[t] == sum(n for (task, _), n in available.items() if task == t)}
    assert all(sums[t] >= max(sums.values()) - 1 for t in tasks - full)


def test_balance_evens_out_what_was_taken_before() -> None:
    assert balanced({("a", "x"): 9, ("b", "x"): 9}, 6, {("a", "x"): 4}) == {("a", "x"): 1, ("b", "x"): 5}


def test_histogram_has_a_bin_for_each_number_of_successes() -> None:
    found = histogram.histogram(np.array([0, 0.5, 0.5, 1, np.nan]), 2)
    assert found == {"edges": [-0.25, 0.25, 0.75, 1.25], "counts": [1, 2, 1]}
    assert len(histogram.histogram(np.array([0.3]), 64)["counts"]) == 20
    assert histogram.histogram(np.array([1.0]), 1)["counts"] == [0, 1]


def test_a_image_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind of image"):
        histogram.draw({}, tmp_path / "x.doc", 0.75, 0.5)


def captions(tmp_path: Path, right: int, **settings: Any) -> dict[str, Any]:
    """Bands of captions of which `right` of 8 answers are as good as can be and the others worth nothing."""
    corpus = make_corpus(tmp_path / "corpus", 9)

    def rule(request: Any, seed: int) -> str:
        if not request.id.startswith("c"):
            return by_number(request, seed)
        return "many green trees stand in a forest" if seed % 8 < right else "nothing at all"

    sample(corpus, [make_model(tmp_path / "model")], tmp_path / "store", k=8, open_engine=Opener(rule))
    return run((corpus, tmp_path / "store"), tmp_path, unsolved_share=1.0, **settings)


@pytest.mark.parametrize(("right", "band"), [(8, "easy"), (6, "easy"), (4, "hard_learnable"), (0, "hard_unsolved")])
def test_captions_that_tie_at_the_median_do_not_all_fail(tmp_path: Path, right: int, band: str, caplog: Any) -> None:
    found = captions(tmp_path, right)
    assert found["bands_by_task"]["caption"][band] == 9
    assert ("equal their source's median" in caplog.text) == (right > 4)
    assert found["caption_ties"] == ({"captions": 9 * right} if right > 4 else {})


def test_the_form_without_ties_stays_available_and_warns(tmp_path: Path, caplog: Any) -> None:
    found = captions(tmp_path, 8, captions="median")
    assert found["bands_by_task"]["caption"]["hard_unsolved"] == 9
    assert "captions: 72 captions' rewards equal their source's median" in caplog.text and "and fail" in caplog.text
