"""The replay that keeps the format through SFT; a stand-in engine describes images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from stand_in_engine import StandInEngine, make_model, one_source, stand_in

from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.child import job_main
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.engines.base import Request
from geozero.inference import loop
from geozero.params import Params, load
from geozero.tasks import SYSTEM_PROMPT
from geozero.training import replay
from geozero.training.dataset import image_uri

FINE, BROKEN = "trees <answer>yes</answer>", "yes"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return one_source(tmp_path / "instruct", "toy_rsicd", "caption", n=5, split="train")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base")


def make_params(**sections: dict[str, Any]) -> Params:
    values = load(ROOT / "params.yaml").model_dump()
    values["sft"] |= {"steps": 2, "batch_size": 10, "micro_batch_size": 10, "replay_share": 0.4}
    for name, section in sections.items():
        values[name] |= section
    return Params.model_validate(values)


def in_this_process(monkeypatch: pytest.MonkeyPatch, rule: Callable[[Request, int], str]) -> StandInEngine:
    """Let `collect`'s child run here, where an engine can be stood in for."""
    engine = stand_in(monkeypatch, rule)

    def run(command: list[str], **_: Any) -> None:
        assert command[:-1] == [sys.executable, "-u", "-m", "geozero.training.replay"]
        job_main(replay.main, command[-1])

    monkeypatch.setattr(process, "run", run)
    return engine


def test_the_prompt_asks_for_a_description_in_tagged_mode() -> None:
    system, user = replay.messages("x/0")
    assert system == {"role": "system", "content": SYSTEM_PROMPT}
    assert user["content"].removeprefix("<image>") in replay.QUESTIONS
    assert replay.messages("x/0") == [system, user]
    assert {replay.messages(f"{i}/0")[1]["content"] for i in range(60)} == {f"<image>{q}" for q in replay.QUESTIONS}


def test_only_well_formed_descriptions_are_kept(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_this_process(monkeypatch, lambda r, i: BROKEN if r.id.endswith("/1") else f"{r.id} {FINE}")
    found = replay.collect(make_params(), base, corpus, tmp_path / "runs")
    # wanted: 0.4 of 2 steps of 10; asked: a quarter more, each image once before any twice
    assert [r.id.rpartition("/")[2] for r, _ in engine.asked] == ["0"] * 5 + ["1"] * 5
    assert len(found) == 5
    images = {s.image_id for s in Corpus(corpus).samples()}
    assert {r.image for r in found} == {image_uri(corpus, i) for i in images}
    assert all(r.text == f"{r.image.rpartition('#')[2]}/0 {FINE}" for r in found)
    assert all(list(r.messages) == replay.messages(r.text.split()[0]) for r in found)
    assert {(p.n, p.temperature, p.max_tokens, p.seed) for _, p in engine.asked} == {(1, 1.0, 96, 7)}
    assert engine.n_closed == 1


def test_no_more_than_wanted_are_kept(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch, lambda r, i: FINE)
    assert len(replay.collect(make_params(), base, corpus, tmp_path / "runs")) == 8
    tiny = make_params(sft={"replay_share": 0.01})  # rounds to none: one is still needed to replay at all
    assert len(replay.collect(tiny, base, corpus, tmp_path / "runs")) == 1


def test_what_was_collected_is_reused(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_this_process(monkeypatch, lambda r, i: FINE)
    runs = tmp_path / "runs"
    first = replay.collect(make_params(), base, corpus, runs)
    moved, corpus = base.rename(tmp_path / "moved"), corpus.rename(tmp_path / "elsewhere")
    again = replay.collect(make_params(a2grpo={"beta": 0.3}), moved, corpus, runs)
    assert [(r.messages, r.text) for r in again] == [(r.messages, r.text) for r in first]
    assert {r.image for r in again} == {image_uri(corpus, s.image_id) for s in Corpus(corpus).samples()}
    assert len(engine.opened) == 1
    (stored,) = runs.glob("replay-*/replay.json")
    write_json(stored, [asdict(first[0]) | {"text": "kept"}])
    assert [r.text for r in replay.collect(make_params(), moved, corpus, runs)] == ["kept"]
    replay.collect(make_params(sft={"replay_share": 0.5}), moved, corpus, runs)
    replay.collect(make_params(a2grpo={"max_completion_tokens": 50}), moved, corpus, runs)
    make_model(moved, b"two")
    replay.collect(make_params(), moved, corpus, runs)
    assert len(engine.opened) == 4
    assert len(list(runs.glob("replay-*/replay.json"))) == 4


def test_a_killed_collection_leaves_nothing_that_is_taken_for_whole(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(request: Request, number: int) -> str:
        if len(engine.asked) > 4:
            raise KeyboardInterrupt
        return f"{request.id} {FINE}"

    monkeypatch.setattr(loop, "CHUNK", 4)
    engine = in_this_process(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        replay.collect(make_params(), base, corpus, tmp_path / "runs")
    assert engine.n_closed == 1
    engine = in_this_process(monkeypatch, lambda r, i: f"{r.id} {FINE}")
    found = replay.collect(make_params(), base, corpus, tmp_path / "runs")
    assert len(found) == 8 and len(engine.asked) == 10 - 4  # the first chunk was in the log
    assert all(r.text.startswith(f"{r.image.rpartition('#')[2]}/") for r in found)


def test_another_corpus_of_the_same_images_samples_nothing_again(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_this_process(monkeypatch, lambda r, i: FINE)
    first = replay.collect(make_params(), base, corpus, tmp_path / "runs")
    one_source(corpus, "toy_rsicd", "vqa", n=5, split="train")  # other questions and labels about the same images
    again = replay.collect(make_params(), base, corpus, tmp_path / "runs")
    assert again == first and len(engine.opened) == 1
    assert len(list((tmp_path / "runs").glob("replay-*/replay.json"))) == 2


def test_a_base_without_format_or_a_corpus_without_images_is_refused(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch, lambda r, i: BROKEN)
    with pytest.raises(InputError, match="no well-formed description"):
        replay.collect(make_params(), base, corpus, tmp_path / "runs")
    tested = one_source(tmp_path / "tested", "toy_rsicd", "caption", split="test")
    with pytest.raises(InputError, match="no training image"):
        replay.collect(make_params(), base, tested, tmp_path / "runs")


def test_the_job_file_holds_all_that_the_child_needs(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = in_this_process(monkeypatch, lambda r, i: FINE)
    params = make_params(sampling={"engine": "transformers"}, model={"max_pixels": 4096})
    replay.collect(params, base, corpus, tmp_path / "runs")
    (given,) = (tmp_path / "runs").glob("replay-*/job.json")
    assert Params.model_validate(json.loads(given.read_text())["params"]) == params
    assert engine.opened[0].items() >= {"max_pixels": 4096, "dtype": "float32", "model_type": "qwen3_vl"}.items()
