"""What is learned later reaches the store: rules, labels, another K, failed requests, answers that are there twice."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from difficulty_world import Opener, by_number, make_corpus, make_model, sample

from geozero import params, tasks
from geozero.common.errors import InputError
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus, CorpusWriter, copy_image
from geozero.difficulty import scoring
from geozero.difficulty.answer_store import ANSWER_SCHEMA, AnswerWriter, Fingerprint, answer_files, current, meaning
from geozero.difficulty.rollout_worker import answer_row
from geozero.difficulty.selection.select import select
from geozero.engines.base import Completion, Request


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus", 18)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def store(corpus: Path, model: Path, tmp_path: Path) -> Path:
    sample(corpus, [model], tmp_path / "store", k=8, open_engine=Opener(by_number))
    return tmp_path / "store"


def files_of(store: Path) -> list[Path]:
    """The files of a store of one directory."""
    (directory,) = (p for p in store.iterdir() if p.is_dir())
    return answer_files(directory)


def stored(store: Path) -> list[dict[str, Any]]:
    return [row for path in files_of(store) for row in pq.read_table(path).to_pylist()]


def rates(corpus: Path, store: Path, out: Path, **options: Any) -> dict[str, float]:
    """Pass rates by id, as `select` writes them."""
    select(corpus, store, out / "easy", out / "hard", params.Select(unsolved_share=1.0), **options)
    return {row["id"]: row["p"] for row in pq.read_table(out / "pass_rates.parquet").to_pylist()}


def changed(corpus: Path, out: Path, change: Callable[[Sample], Sample]) -> Path:
    with CorpusWriter(out, {"made_by": "test"}) as writer:
        for image in Corpus(corpus).image_rows():
            copy_image(writer, image)
        for s in Corpus(corpus).samples():
            writer.add(change(s))
    return out


def by_hand(corpus: Path, store: Path, convention: Any = "norm1000") -> dict[str, float]:
    """Pass rates from nothing but the stored texts, captions left out."""
    samples, hits = {s.id: s for s in Corpus(corpus).samples()}, dict[str, list[bool]]()
    for path in store.glob("*/answers-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            task = tasks.get(samples[row["id"]].task)
            reward = task.reward(row["text"], samples[row["id"]], "direct", convention)
            hits.setdefault(row["id"], []).append(bool(task.succeeds(reward)))
    return {name: sum(found) / len(found) for name, found in hits.items() if not name.startswith("c")}


def closed(rates: dict[str, float]) -> dict[str, float]:
    return {name: rate for name, rate in rates.items() if not name.startswith("c")}


def test_a_corrected_label_is_followed_and_asks_nothing(corpus: Path, model: Path, store: Path, tmp_path: Path) -> None:
    before = rates(corpus, store, tmp_path / "a")
    corrected = changed(
        corpus, tmp_path / "corrected", lambda s: dataclasses.replace(s, answer="no") if s.task == "vqa" else s
    )
    nobody = Opener(by_number)
    assert sample(corrected, [model], store, k=8, open_engine=nobody).n_new == 0 and not nobody.opened
    after = rates(corrected, store, tmp_path / "b")
    assert closed(after) == by_hand(corrected, store)
    assert {i: 1 - p for i, p in before.items() if i[0] == "q"} == {i: p for i, p in after.items() if i[0] == "q"}
    assert {i: p for i, p in before.items() if i[0] != "q"} == {i: p for i, p in after.items() if i[0] != "q"}
    assert rates(corpus, store, tmp_path / "c") == before
    hard = {s.id for s in Corpus(tmp_path / "b/hard").samples()}
    assert {i for i in hard if i[0] == "q"} == {i for i, p in after.items() if i[0] == "q" and 0 < p <= 0.5}


def test_a_changed_threshold_is_followed(corpus: Path, store: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(tasks.get("grounding")), "success_reward", 0.0)
    found = rates(corpus, store, tmp_path)
    assert {p for i, p in found.items() if i[0] == "g"} == {1.0} and closed(found) == by_hand(corpus, store)


def test_a_changed_parser_is_followed(corpus: Path, store: Path, tmp_path: Path, monkeypatch: Any) -> None:
    task = type(tasks.get("vqa"))
    monkeypatch.setattr(task, "answer_reward", lambda self, answer, sample, boxes="norm1000": float(answer == "no"))
    found = rates(corpus, store, tmp_path)
    assert closed(found) == by_hand(corpus, store) and found["q000"] == 1.0


def test_rules_of_another_version_are_computed_again(
    corpus: Path, store: Path, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A store of another version: nothing that it says about rewards is believed."""
    for path in files_of(store):
        table = pq.read_table(path)
        lies = {"reward": pa.array([0.25] * len(table)), "success": pa.array([False] * len(table))}
        for name, column in lies.items():
            table = table.set_column(table.schema.get_field_index(name), ANSWER_SCHEMA.field(name), column)
        pq.write_table(table.drop_columns(["error"]), path)
    monkeypatch.setattr(scoring, "rule_version", lambda: "another")
    caplog.set_level(logging.INFO)
    found = rates(corpus, store, tmp_path)
    assert closed(found) == by_hand(corpus, store)
    assert "576 answers are scored anew" in caplog.text


@pytest.mark.parametrize("spots", [0, 64])
def test_a_direct_answer_that_was_cut_off_earns_nothing(
    corpus: Path, store: Path, tmp_path: Path, monkeypatch: Any, spots: int
) -> None:
    """Neither one that is scored when it is sampled nor one of a store of an earlier rule version."""
    monkeypatch.setattr(scoring, "SPOT_SAMPLES", spots)
    before = closed(rates(corpus, store, tmp_path / "a"))
    assert max(p for i, p in before.items() if i[0] == "g") > 0
    for path in files_of(store):
        table = pq.read_table(path)
        place = table.schema.get_field_index("finish_reason")
        reasons = pa.array(["length" if name.startswith("g") else "stop" for name in table["id"].to_pylist()])
        table = table.set_column(place, ANSWER_SCHEMA.field("finish_reason"), reasons)
        pq.write_table(table.drop_columns(["score_key"]), path)
    after = closed(rates(corpus, store, tmp_path / "b"))
    assert after == {i: 0.0 if i[0] == "g" else p for i, p in before.items()}
    s = next(s for s in Corpus(corpus).samples() if s.task == "vqa")
    for reason, reward in (("stop", 1.0), ("length", 0.0)):
        row = answer_row(s, 0, Completion(s.answer, reason, 9, 1), "norm1000", "m", "p")
        assert (row["reward"], row["success"], row["error"]) == (reward, reward == 1.0, None)


@pytest.mark.parametrize(
    ("a", "b", "agree"),
    [
        *[("two", "2", True), ("2.0 ships", "2 ships", True), ("none", "0", True), ("Yes.", "yes", True)],
        *[("3.5", "35", False), ("-5", "5", False), (">3", "3", False), ("25m2", "25km2", False), ("", "...", True)],
    ],
)
def test_two_answers_agree_by_the_strict_rule(a: str, b: str, agree: bool) -> None:
    assert (meaning(a) == meaning(b)) is agree


def test_a_lie_under_the_right_key_is_found_out(corpus: Path, store: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(scoring, "SPOT_SAMPLES", 3)
    for path in files_of(store):
        table = pq.read_table(path)
        place = table.schema.get_field_index("reward")
        pq.write_table(table.set_column(place, ANSWER_SCHEMA.field("reward"), pa.array([0.25] * len(table))), path)
    assert closed(rates(corpus, store, tmp_path)) == by_hand(corpus, store)


def test_a_fresh_store_is_not_scored_again(corpus: Path, store: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(scoring, "SPOT_SAMPLES", 0)

    def never(*_: Any) -> float:
        raise AssertionError("the cache holds")

    expected = by_hand(corpus, store)
    monkeypatch.setattr(scoring, "reward_of", never)
    assert closed(rates(corpus, store, tmp_path)) == expected


def add(store: Path, row: dict[str, Any], **values: Any) -> None:
    """Store an answer once more."""
    (directory,) = (p for p in store.iterdir() if p.is_dir())
    writer = AnswerWriter(store, Fingerprint(**json.loads((directory / "_fingerprint.json").read_text())))
    file = writer.write([row | values])
    file.rename(file.with_name(f"answers-zzz-{file.name}"))


def test_answers_that_differ_are_reported_and_the_first_counts(
    corpus: Path, model: Path, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = rates(corpus, store, tmp_path / "a")
    rows = sorted((row for row in stored(store) if row["id"] == "q008"), key=lambda row: int(row["rollout"]))
    add(store, rows[0])  # the same: no matter
    assert rates(corpus, store, tmp_path / "b") == before and "differ" not in caplog.text
    add(store, rows[1], text="no", answer="no", success=False, reward=0.0)
    assert rates(corpus, store, tmp_path / "c") == before
    assert "1 answers are stored more than once and differ" in caplog.text and "q008, rollout 1" in caplog.text
    caplog.clear()
    assert sample(corpus, [model], store, k=8, open_engine=Opener(by_number)).n_new == 0
    assert "differ" in caplog.text


def flaky(request: Request, seed: int) -> str:
    return "!" if request.id == "s008" and seed % 8 == 3 else by_number(request, seed)


def test_one_failed_answer_does_not_drop_a_sample(corpus: Path, model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    sample(corpus, [model], store, k=8, open_engine=Opener(flaky))
    found = rates(corpus, store, tmp_path / "a")
    assert found["s008"] == 1.0 and found["s007"] == 7 / 8
    assert [row["error"] for row in stored(store) if row["id"] == "s008" and row["error"]] == ["image"]
    broken = tmp_path / "broken"
    sample(corpus, [model], broken, k=8, open_engine=Opener(lambda r, s: "!" if r.id == "s008" else by_number(r, s)))
    select(corpus, broken, tmp_path / "e", tmp_path / "h", params.Select(unsolved_share=1.0))
    bands = {row["id"]: row["band"] for row in pq.read_table(tmp_path / "pass_rates.parquet").to_pylist()}
    assert bands["s008"] == "unreadable"


def test_what_failed_is_asked_again_on_request(corpus: Path, model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    sample(corpus, [model], store, k=8, open_engine=Opener(flaky))
    nobody = Opener(by_number)
    assert sample(corpus, [model], store, k=8, open_engine=nobody).n_new == 0 and not nobody.opened
    again = Opener(by_number)
    assert sample(corpus, [model], store, k=8, retry="errors", open_engine=again).n_new == 1
    assert {name for name, _ in again.asked} == {"s008"}
    assert sample(corpus, [model], store, k=8, retry="errors", open_engine=Opener(by_number)).n_new == 0
    whole = tmp_path / "whole"
    sample(corpus, [model], whole, k=8, open_engine=Opener(by_number))
    assert rates(corpus, store, tmp_path / "a") == rates(corpus, whole, tmp_path / "b")


class Killed(Exception):
    pass


def test_a_killed_raise_leaves_the_finished_k(corpus: Path, model: Path, store: Path, tmp_path: Path) -> None:
    before = rates(corpus, store, tmp_path / "a")

    def kill(state: Any) -> None:
        if state.done >= 50:
            raise Killed

    with pytest.raises(Killed):
        sample(corpus, [model], store, k=16, chunk=32, progress=kill, open_engine=Opener(by_number))
    assert current(store)["k"] == 8 and rates(corpus, store, tmp_path / "b") == before
    sample(corpus, [model], store, k=8, open_engine=Opener(by_number))  # back
    assert rates(corpus, store, tmp_path / "c") == before
    with pytest.raises(InputError, match=r"only .* of 72 samples have all 16 answers"):
        rates(corpus, store, tmp_path / "d", k=16)
    sample(corpus, [model], store, k=16, open_engine=Opener(by_number))
    assert current(store)["k"] == 16
    assert rates(corpus, store, tmp_path / "e", k=8) == before
    assert rates(corpus, store, tmp_path / "f") == rates(corpus, store, tmp_path / "g", k=16)
    sample(corpus, [model], store, k=8, open_engine=Opener(by_number))
    assert current(store)["k"] == 8


def test_a_tryout_leaves_the_finished_answers(corpus: Path, model: Path, store: Path, tmp_path: Path) -> None:
    before = current(store)
    sample(corpus, [model], store, k=16, limit=5, open_engine=Opener(by_number))
    assert current(store) == before
    sample(corpus, [model], store, k=8, temperature=0.5, limit=5, open_engine=Opener(by_number))
    assert current(store) == before and rates(corpus, store, tmp_path)


def test_the_last_of_several_workers_makes_a_larger_k_current(corpus: Path, model: Path, store: Path) -> None:
    for shard in (2, 0, 1):
        assert current(store)["k"] == 8
        sample(corpus, [model], store, k=10, shard=f"{shard}/3", open_engine=Opener(by_number))
    assert current(store)["k"] == 10


@pytest.mark.parametrize("size", [0.5, 0.0])
def test_a_truncated_file_is_one_line_and_loses_only_its_answers(
    corpus: Path, model: Path, tmp_path: Path, size: float
) -> None:
    store = tmp_path / "store"
    sample(corpus, [model], store, k=8, chunk=64, open_engine=Opener(by_number))
    files = files_of(store)
    lost = pq.read_metadata(files[0]).num_rows
    files[0].write_bytes(files[0].read_bytes()[: int(size * files[0].stat().st_size)])
    for attempt in (
        lambda: sample(corpus, [model], store, k=8, open_engine=Opener(by_number)),
        lambda: rates(corpus, store, tmp_path),
    ):
        with pytest.raises(InputError, match="unreadable chunk of answers") as caught:
            attempt()
        assert "\n" not in str(caught.value) and files[0].name in str(caught.value)
    files[0].unlink()
    assert sample(corpus, [model], store, k=8, open_engine=Opener(by_number)).n_new == lost
    assert rates(corpus, store, tmp_path)
