"""Sampling into the store: complete, keyed, resumable, shardable, growing, cross-fitted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest
from difficulty_world import FakeEngine, Opener, by_number, make_corpus, make_model, sample

from geozero.common.errors import InputError
from geozero.common.progress import Progress
from geozero.corpus.sample import fold_of, parse_shard
from geozero.corpus.store import Corpus
from geozero.difficulty.answer_store import ANSWER_SCHEMA, answer_files, current, pass_rates
from geozero.difficulty.progress import SamplingProgress
from geozero.engines.base import rollout_seed
from geozero.params import Adaptive


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus", 6)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def rows(directory: Path | str) -> list[dict[str, Any]]:
    return [row for path in answer_files(Path(directory)) for row in pq.read_table(path).to_pylist()]


def test_every_sample_gets_k_answers_with_reward_and_success(corpus: Path, model: Path, tmp_path: Path) -> None:
    opener = Opener(by_number)
    seen: list[int] = []
    done = sample(
        corpus, [model], tmp_path / "store", k=8, chunk=50, open_engine=opener, progress=lambda p: seen.append(p.done)
    )
    found = rows(done.directories[0])
    assert (done.n_samples, done.n_answers, done.n_new) == (24, 192, 192) and len(found) == 192
    assert Counter((r["id"], r["rollout"]) for r in found).most_common(1)[0][1] == 1
    assert {r["id"] for r in found} == {s.id for s in Corpus(corpus).samples()}
    assert all(r["seed"] == rollout_seed(7, r["id"], r["rollout"]) for r in found)
    assert {r["success"] for r in found if r["id"].startswith("c")} == {None}
    for r in found:
        if r["id"].startswith("g"):
            assert r["success"] == (r["reward"] == 1.0) and r["answer"] == r["text"]
    assert Opener(by_number).asked == [] and opener.opened[0].closed
    assert seen == list(range(0, 193, 48))  # this engine answers all that is under way together: whole samples
    assert pq.read_schema(answer_files(Path(done.directories[0]))[0]).names == ANSWER_SCHEMA.names


def test_a_complete_store_opens_no_engine(corpus: Path, model: Path, tmp_path: Path) -> None:
    sample(corpus, [model], tmp_path / "store", k=2, open_engine=Opener(by_number))
    opener = Opener(by_number)
    again = sample(corpus, [model], tmp_path / "store", k=2, open_engine=opener)
    assert not opener.opened and again.n_new == 0 and again.n_answers == 48


def test_the_store_and_each_directory_are_one_table_to_pandas(corpus: Path, model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = sample(corpus, [model], store, k=8, adaptive=Adaptive(pilot=0.5), open_engine=Opener(by_number))
    whole, part = pandas.read_parquet(store), pandas.read_parquet(done.directories[0])
    assert len(whole) == len(part) == done.n_answers and list(part) == ANSWER_SCHEMA.names
    assert {path.suffix for path in Path(done.directories[0]).iterdir()} == {".json", ".parquet"}


def test_an_engine_that_cannot_start_leaves_the_current_answers(corpus: Path, model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    sample(corpus, [model], store, k=2, open_engine=Opener(by_number))
    before = current(store), sorted(store.rglob("*"))

    def down(*_: Any, **__: Any) -> FakeEngine:
        raise InputError("no server answers")

    with pytest.raises(InputError, match="no server answers"):
        sample(corpus, [model], store, k=2, temperature=0.5, open_engine=down)
    assert (current(store), sorted(store.rglob("*"))) == before
    sample(corpus, [model], store, k=2, temperature=0.5, open_engine=Opener(by_number))
    sample(corpus, [model], store, k=2, open_engine=down)  # nothing to ask: these are the current ones again
    assert current(store) == before[0]


def test_the_rate_counts_no_loading_of_any_fold(corpus: Path, tmp_path: Path) -> None:
    models = [make_model(tmp_path / f"fold-{i}", bytes([i])) for i in range(2)]
    opener = Opener(by_number)

    def slow(name: str, path: Path, **_: Any) -> FakeEngine:
        time.sleep(0.5)
        return opener(name, path)

    done = sample(corpus, models, tmp_path / "store", k=2, open_engine=slow)
    assert len(opener.opened) == 2 and done.seconds > 1.0
    assert done.n_new / done.rate < done.seconds - 0.9


def test_k_grows_and_asks_only_what_is_missing(corpus: Path, model: Path, tmp_path: Path) -> None:
    whole = sample(corpus, [model], tmp_path / "whole", k=5, open_engine=Opener(by_number))
    sample(corpus, [model], tmp_path / "store", k=2, open_engine=Opener(by_number))
    grown = sample(corpus, [model], tmp_path / "store", k=5, open_engine=Opener(by_number))
    assert grown.n_new == 24 * 3

    def table(directory: str) -> list[tuple[Any, ...]]:
        return sorted((r["id"], r["rollout"], r["seed"], r["text"]) for r in rows(directory))

    assert table(grown.directories[0]) == table(whole.directories[0])
    nobody = Opener(by_number)
    assert sample(corpus, [model], tmp_path / "store", k=3, open_engine=nobody).n_new == 0 and not nobody.opened


def test_new_samples_extend_a_store(corpus: Path, model: Path, tmp_path: Path) -> None:
    sample(corpus, [model], tmp_path / "store", k=2, open_engine=Opener(by_number))
    larger = make_corpus(tmp_path / "larger", 9)
    opener = Opener(by_number)
    assert sample(larger, [model], tmp_path / "store", k=2, open_engine=opener).n_new == 24
    assert {i[-3:] for i, _ in opener.asked} == {"006", "007", "008"}


def test_workers_fill_one_store_without_overlap(corpus: Path, model: Path, tmp_path: Path) -> None:
    openers = [Opener(by_number) for _ in range(3)]
    for i, opener in enumerate(openers):
        sample(corpus, [model], tmp_path / "store", k=2, shard=f"{i}/3", open_engine=opener)
    ids = [{i for i, _ in opener.asked} for opener in openers]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 24
    last = Opener(by_number)
    done = sample(corpus, [model], tmp_path / "store", k=2, open_engine=last)
    assert not last.opened
    assert {p.name.split("-")[1] for p in answer_files(Path(done.directories[0]))} == {"0of3", "1of3", "2of3"}


def test_another_model_prompt_limit_or_temperature_is_another_directory(
    corpus: Path, model: Path, tmp_path: Path
) -> None:
    def directory(**options: Any) -> str:
        made = options.pop("model", model)
        return sample(
            corpus, [made], tmp_path / "store", **{"k": 1, "open_engine": Opener(by_number), **options}
        ).directories[0]

    found = {
        directory(),
        directory(temperature=0.5),
        directory(max_pixels=4096),
        directory(seed=8),
        directory(boxes="pixels"),
        directory(model=make_model(tmp_path / "other", b"two")),
    }
    assert len(found) == 6
    assert directory(k=2) == directory(k=2, shard="0/2") == directory(k=2, chunk=3)


def test_a_changed_question_is_asked_again(corpus: Path, model: Path, tmp_path: Path) -> None:
    sample(corpus, [model], tmp_path / "store", k=2, open_engine=Opener(by_number))
    import dataclasses

    from geozero.corpus.store import CorpusWriter, copy_image

    changed = tmp_path / "changed"
    with CorpusWriter(changed, {}) as writer:
        for image in Corpus(corpus).image_rows():
            copy_image(writer, image)
        for s in Corpus(corpus).samples():
            writer.add(dataclasses.replace(s, question="What is it?") if s.id == "q003" else s)
    opener = Opener(by_number)
    sample(changed, [model], tmp_path / "store", k=2, open_engine=opener)
    assert {i for i, _ in opener.asked} == {"q003"}


def test_cross_fitting_asks_each_model_about_its_own_fold(corpus: Path, tmp_path: Path) -> None:
    models = [make_model(tmp_path / f"m{i}", bytes([i])) for i in range(2)]
    opener = Opener(by_number)
    done = sample(corpus, models, tmp_path / "store", k=2, open_engine=opener)
    keys = {s.id: s.image_key for s in Corpus(corpus).samples()}
    assert len(set(done.directories)) == 2
    for fold, directory in enumerate(done.directories):
        ids = {r["id"] for r in rows(directory)}
        assert ids and all(fold_of(keys[i], 2) == fold for i in ids)
    assert current(tmp_path / "store") == {"fingerprints": [Path(d).name for d in done.directories], "k": 2}
    assert len(pass_rates(tmp_path / "store")) == 24


def test_limit_takes_the_same_few(corpus: Path, model: Path, tmp_path: Path) -> None:
    few = Opener(by_number)
    assert sample(corpus, [model], tmp_path / "a", k=1, limit=5, open_engine=few).n_samples == 5
    more = Opener(by_number)
    sample(corpus, [model], tmp_path / "b", k=1, limit=9, open_engine=more)
    assert {i for i, _ in few.asked} < {i for i, _ in more.asked}


def test_failed_and_truncated_answers_are_counted(
    corpus: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rule(request: Any, seed: int) -> str:
        return "!" if request.id == "s000" else "on and on …"

    done = sample(corpus, [model], tmp_path / "store", k=2, open_engine=Opener(rule))
    assert (done.errors, done.truncated) == (2, 46)
    assert "46 of 48 answers were cut off" in caplog.text and "2 of 48 answers failed" in caplog.text
    assert "2 of these, the first: image" in caplog.text
    bad = [r for r in rows(done.directories[0]) if r["id"] == "s000"]
    assert [(r["success"], r["reward"], r["finish_reason"]) for r in bad] == [(None, 0.0, "error")] * 2
    table = {r["id"]: r for r in pass_rates(tmp_path / "store").to_pylist()}
    assert table["s000"]["n"] == 0 and table["s000"]["p"] is None
    assert table["q000"]["p"] == 0.0 and table["q000"]["distinct"] == 1


def test_pass_rates(corpus: Path, model: Path, tmp_path: Path) -> None:
    sample(corpus, [model], tmp_path / "store", k=8, open_engine=Opener(by_number))
    table = {r["id"]: r for r in pass_rates(tmp_path / "store").to_pylist()}
    assert [table[f"q00{i}"]["p"] for i in range(6)] == [i / 8 for i in range(6)]
    assert table["q003"]["n"] == 8 and table["q003"]["n_success"] == 3 and table["q003"]["distinct"] == 2
    assert table["q000"]["distinct"] == 1 and table["c001"]["p"] is None
    assert 0 < table["c001"]["mean_reward"] < table["c005"]["mean_reward"] < 1


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "0/0", "", "1/2/3", "²/3"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="shard"):
        parse_shard(text)


def test_bad_input_is_one_line(corpus: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such corpus"):
        sample(tmp_path / "none", [model], tmp_path / "store", open_engine=Opener(by_number))
    with pytest.raises(InputError, match="no such model"):
        sample(corpus, [tmp_path / "none"], tmp_path / "store", open_engine=Opener(by_number))
    with pytest.raises(InputError, match="at least one model"):
        sample(corpus, [], tmp_path / "store", open_engine=Opener(by_number))
    done = sample(corpus, [model], tmp_path / "store", k=1, open_engine=Opener(by_number))
    answer_files(Path(done.directories[0]))[0].write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match="unreadable chunk") as caught:
        sample(corpus, [model], tmp_path / "store", k=1, open_engine=Opener(by_number))
    assert "\n" not in str(caught.value)


def test_progress_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SamplingProgress(total=100, done=25, started=time.monotonic() - 5)
    assert state.rate == pytest.approx(5, rel=0.01) and state.seconds_left == pytest.approx(15, rel=0.01)
    assert "25 of 100 answers" in state.line() and "15 s left" in state.line()
    assert "loading" in SamplingProgress(total=3).line()
    written: list[str] = []
    state.show(Progress(write=written.append))
    SamplingProgress(total=25, done=25).show(Progress(write=written.append))
    assert len(written) == 1 and written[0].startswith("sampled 25 of 25 answers, ")


def test_killed_in_the_middle_it_goes_on(corpus: Path, model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    child = subprocess.Popen([sys.executable, __file__, str(corpus), str(model), str(store)])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(store.glob("*/answers-*.parquet"))) < 3:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    directory = next(p for p in store.iterdir() if p.is_dir())
    before = {(r["id"], r["rollout"]) for r in rows(directory)}
    assert len(before) >= 3 * 4
    assert all(not p.name.endswith(".parquet") for p in directory.iterdir() if p.name.startswith("."))
    opener = Opener(by_number)
    done = sample(corpus, [model], store, k=4, chunk=8, open_engine=opener)
    found = [(r["id"], r["rollout"]) for r in rows(directory)]
    assert len(found) == len(set(found)) == 96 and done.n_new == 96 - len(before)


def test_each_fold_has_its_servers_and_a_trusted_name_is_in_its_fingerprint(corpus: Path, tmp_path: Path) -> None:
    models = [make_model(tmp_path / f"filter/fold-{i}", bytes([i])) for i in range(2)]
    given: list[dict[str, Any]] = []

    def opened(name: str, path: Path, **options: Any) -> FakeEngine:
        given.append(options)
        return FakeEngine(path, by_number)

    urls = {"fold-0": ["http://a"], "fold-1": ["http://b", "http://c"]}
    usual = {"k": 1, "engine": "server", "open_engine": opened}
    plain = sample(corpus, models, tmp_path / "store", urls=urls, **usual)
    assert [options["urls"] for options in given] == [("http://a",), ("http://b", "http://c")]
    assert all("trust_server_model" not in options for options in given)
    unnamed = sample(corpus, models, tmp_path / "other", k=1, open_engine=Opener(by_number))
    assert [Path(d).name for d in plain.directories] == [Path(d).name for d in unnamed.directories]
    given.clear()
    trust = {"fold-0": "gpt-a", "fold-1": "gpt-b"}
    trusted = sample(corpus, models, tmp_path / "store", urls=urls, trust_server_model=trust, **usual)
    assert [options["trust_server_model"] for options in given] == ["gpt-a", "gpt-b"]
    assert not set(trusted.directories) & set(plain.directories)
    for wrong, words in (
        ({"urls": {"fold-0": ["http://a"]}}, "no server is named for fold-1"),
        ({"urls": urls, "trust_server_model": "gpt"}, "cannot stand for 2 filtering models"),
    ):
        with pytest.raises(InputError, match=words):
            sample(corpus, models, tmp_path / "store", **wrong, **usual)


if __name__ == "__main__":
    sample(
        Path(sys.argv[1]), [sys.argv[2]], Path(sys.argv[3]), k=4, chunk=8, open_engine=Opener(by_number, seconds=0.1)
    )
