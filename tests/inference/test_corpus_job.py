"""Answers to a corpus: the record format, what is asked again and what is not, and errors; a stand-in answers."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stand_in_engine import CLASSES, KINDS, make_model, one_source, stand_in

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.common.process import ChildFailed
from geozero.corpus.store import Corpus
from geozero.engines.base import Request, SamplingParams
from geozero.inference import corpus_job
from geozero.inference.corpus_job import CorpusJob, choose, records_path, run
from geozero.tasks import SYSTEM_PROMPT


def right(request: Request, rollout: int) -> str:
    return "I see trees. <answer>forest</answer>"


@pytest.fixture
def job(tmp_path: Path) -> CorpusJob:
    scenes = one_source(tmp_path / "toy_aid", "toy_aid", "scene_cls")
    questions = one_source(tmp_path / "toy_rsvqa_lr", "toy_rsvqa_lr", "vqa")
    model = make_model(tmp_path / "model")
    return CorpusJob(
        str(model), (str(scenes), str(questions)), str(tmp_path / "out"), ("direct", "tagged"), max_tokens=9
    )


def read(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text())
    return records


def test_records_have_the_published_columns_and_what_scoring_needs(
    job: CorpusJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stand_in(monkeypatch, right)
    paths = run(replace(job, engine={"name": "transformers", "dtype": "float32"}), lambda line: None)
    assert [p.relative_to(job.out).as_posix() for p in paths] == [
        "direct/toy_aid.json",
        "tagged/toy_aid.json",
        "direct/toy_rsvqa_lr.json",
        "tagged/toy_rsvqa_lr.json",
    ]
    samples = {s.id: s for s in Corpus(job.corpora[0]).samples()}
    tagged = read(paths[1])
    assert [r["id"] for r in tagged] == list(samples)  # in the corpus's order
    forest = next(r for r in tagged if samples[r["id"]].answer == "forest")
    sample = samples[forest["id"]]
    assert forest == {
        "id": sample.id,
        "sample": sample.id,
        "task": "scene_cls",
        "source": "toy_aid",
        "question": sample.question,
        "raw_output": "I see trees. <answer>forest</answer>",
        "pred": "forest",
        "label": "forest",
        "image_path": sample.image_key,
        "image_id": sample.image_id,
        "width": 40,
        "height": 20,
        "question_type": None,
        "reward": 1.0,
        "n_tokens": 4,
        "finish_reason": "stop",
    }
    assert {r["reward"] for r in read(paths[0])} == {0.0}  # direct mode: the whole completion is the answer
    assert {r["question_type"] for r in read(paths[3])} == set(KINDS)
    assert engine.opened == [{"model": job.model, "name": "transformers", "dtype": "float32"}]
    assert engine.n_closed == 1


def test_modes_differ_in_the_system_prompt_and_the_answers_are_greedy(
    job: CorpusJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stand_in(monkeypatch, right)
    run(job, lambda line: None)
    for number, (request, params) in enumerate(engine.asked):
        roles = [turn["role"] for turn in request.messages]
        assert roles == (["user"] if number // 6 % 2 == 0 else ["system", "user"])
        assert request.messages[-1]["content"].startswith("<image>Question")
        assert roles == ["user"] or request.messages[0]["content"] == SYSTEM_PROMPT
        assert params == SamplingParams(n=1, temperature=0.0, max_tokens=9, seed=0)
        assert Image.open(io.BytesIO(request.image)).size == (40, 20)


def test_captions_keep_all_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda request, i: "a road .")
    corpus = one_source(tmp_path / "c", "toy_rsicd", "caption", n=2)
    job = CorpusJob(str(make_model(tmp_path / "model")), (str(corpus),), str(tmp_path / "out"), ("direct",))
    (path,) = run(job, lambda line: None)
    assert sorted(r["label"] for r in read(path)) == [
        ["a road and 0 trees .", "a road ."],
        ["a road and 1 trees .", "a road ."],
    ]
    bleu = 0.1**0.5  # two words: orders 1 and 2 match, 3 and 4 count a tenth of a match
    assert [r["reward"] for r in read(path)] == [pytest.approx((1 + bleu) / 2)] * 2


def test_several_rollouts_a_question_are_records_of_their_own(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, lambda request, i: f"<answer>{CLASSES[i]}</answer>")
    sampled = replace(job, samples=3, temperature=0.7, seed=5, modes=("tagged",), corpora=job.corpora[:1])
    (path,) = run(sampled, lambda line: None)
    records = read(path)
    first = records[0]["sample"]
    assert [r["id"] for r in records[:3]] == [first, f"{first}/1", f"{first}/2"]
    assert sum(r["reward"] for r in records[:3]) == 1.0
    assert len({r["id"] for r in records}) == len(records) == 18
    assert engine.asked[0][1] == SamplingParams(n=3, temperature=0.7, max_tokens=9, seed=5)


def test_what_is_there_is_not_asked_again(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, told = stand_in(monkeypatch, right), []
    paths = run(job, told.append)
    assert told == [
        f"{source}, {mode}: 6 of 6" for source in ("toy_aid", "toy_rsvqa_lr") for mode in ("direct", "tagged")
    ]
    stamps = {path: path.stat().st_mtime_ns for path in paths}
    told.clear()
    assert run(job, told.append) == paths
    assert told == ["all records are there"]
    assert len(engine.opened) == 1
    assert {path: path.stat().st_mtime_ns for path in paths} == stamps


def test_a_killed_job_asks_only_for_what_is_missing(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(request: Request, rollout: int) -> str:
        if len(engine.asked) > 12:  # in the third of four parts
            raise KeyboardInterrupt
        return "x"

    engine = stand_in(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        run(job, lambda line: None)
    assert engine.n_closed == 1
    engine = stand_in(monkeypatch, right)
    paths = run(job, lambda line: None)
    assert len(engine.asked) == 12
    assert {r["raw_output"] for r in read(paths[1])} == {"x"}
    paths[1].with_suffix(".done.json").unlink()  # records without their stamp are half written
    paths[3].unlink()
    paths[2].with_suffix(".done.json").write_text('{"half')
    engine = stand_in(monkeypatch, right)
    run(job, lambda line: None)
    assert len(engine.asked) == 18


@pytest.mark.parametrize(
    "changed",
    [
        {"limit": 4},
        {"max_tokens": 10},
        {"seed": 1},
        {"boxes": "pixels"},
        {"engine": {"max_pixels": 100}},
        {"samples": 2},
    ],
)
def test_another_setting_is_asked_again(
    changed: dict[str, Any], job: CorpusJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, right)
    run(job, lambda line: None)
    engine = stand_in(monkeypatch, right)
    run(replace(job, **changed), lambda line: None)
    assert len(engine.asked) == 4 * min(6, changed.get("limit", 6))


def test_a_rebuilt_model_is_asked_again_and_a_moved_one_is_not(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    run(job, lambda line: None)
    moved = Path(job.model).rename(Path(job.model).with_name("elsewhere"))
    run(replace(job, model=str(moved)), lambda line: None)
    assert len(engine.opened) == 1
    make_model(moved, b"two")
    run(replace(job, model=str(moved)), lambda line: None)
    assert len(engine.opened) == 2
    assert len(engine.asked) == 48


def test_another_corpus_or_prompt_is_asked_again(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    run(job, lambda line: None)
    one_source(Path(job.corpora[0]), "toy_aid", "scene_cls", n=7)
    run(job, lambda line: None)
    assert len(engine.asked) == 24 + 14
    monkeypatch.setattr("geozero.tasks.base.SYSTEM_PROMPT", "Think.")
    run(job, lambda line: None)
    assert len(engine.asked) == 38 + 13  # tagged mode alone has a system prompt


def test_the_limit_goes_by_stable_hash_and_grows_without_moving(job: CorpusJob) -> None:
    samples = list(Corpus(job.corpora[0]).samples())
    assert choose(samples, None) == choose(samples, 6) == choose(samples, 99) == samples
    four, three = choose(samples, 4), choose(samples, 3)
    assert set(three) < set(four)
    assert four == [s for s in samples if s in four]  # stored order
    assert choose(list(reversed(samples)), 3) == list(reversed(three))
    assert choose([s for s in samples if s != three[0]], 2) == three[1:]


def test_failed_requests_are_counted_and_wrong(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_job, "CHUNK", 4)
    stand_in(monkeypatch, lambda request, i: "!" if "0" in request.messages[-1]["content"] else "yes")
    told: list[str] = []
    (path,) = run(replace(job, corpora=job.corpora[1:], modes=("direct",)), told.append)
    first = next(i for i, s in enumerate(Corpus(job.corpora[1]).samples()) if s.question == "Question 0?")
    failure = ", 1 failed, the first: the image has no pixels"
    assert told == [
        f"toy_rsvqa_lr, direct: 4 of 6{failure if first < 4 else ''}",
        f"toy_rsvqa_lr, direct: 6 of 6{failure}",
    ]
    failed = read(path)[first]
    assert (failed["finish_reason"], failed["raw_output"], failed["reward"]) == ("error", "", 0.0)


def test_bad_input_is_named(job: CorpusJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    with pytest.raises(InputError, match="no such model"):
        run(replace(job, model=str(tmp_path / "none")))
    with pytest.raises(InputError, match="no such corpus"):
        run(replace(job, corpora=(str(tmp_path / "none"),)))
    with pytest.raises(InputError, match="no val samples"):
        run(replace(job, split="val"))
    assert engine.opened == []


def test_a_child_runs_the_job_and_its_bad_input_is_one_error(
    job: CorpusJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with pytest.raises(InputError, match=r"^no such model in .*missing \(give a checkpoint"):
        corpus_job.run_in_child(replace(job, model=str(tmp_path / "missing")), tmp_path / "log", told.append)
    assert len(told) == 1
    assert (tmp_path / "log").read_text().strip() == told[0]
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho boom\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ChildFailed, match="code 3:\nboom"):
        corpus_job.run_in_child(job, tmp_path / "log")
    values = json.loads((Path(job.out) / "job.json").read_text())
    assert CorpusJob(**values | {"corpora": tuple(values["corpora"]), "modes": tuple(values["modes"])}) == job


def test_records_of_a_job_file_stand_where_records_path_says(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, right)
    given = Path(job.out).with_name("job.json")
    write_json(given, job)
    corpus_job.main([str(given)])
    assert len(read(records_path(job.out, "tagged", "toy_rsvqa_lr"))) == 6


def test_forced_answers_leave_no_room_for_a_thought(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, lambda request, i: "forest</answer>" if request.prefix else right(request, i))
    paths = run(replace(job, modes=("tagged",), forced=4), lambda line: None)
    assert [p.relative_to(job.out).as_posix() for p in paths][:2] == ["tagged/toy_aid.json", "forced/toy_aid.json"]
    tagged, forced = read(paths[0]), read(paths[1])
    assert len(forced) == 4 and {r["id"] for r in forced} < {r["id"] for r in tagged}
    assert {r["raw_output"] for r in forced} == {"<answer>forest</answer>"} and {r["pred"] for r in forced} == {
        "forest"
    }
    by_id = {r["id"]: r["reward"] for r in tagged}
    assert [r["reward"] for r in forced] == [by_id[r["id"]] for r in forced]
    requests = [request for request, _ in engine.asked if request.prefix]
    assert {(r.prefix, r.messages[0]["content"]) for r in requests} == {("<answer>", SYSTEM_PROMPT)}
    before = len(engine.asked)
    run(replace(job, modes=("tagged",), forced=4), lambda line: None)
    assert len(engine.asked) == before  # nothing is asked again
    run(replace(job, modes=("tagged",), forced=None), lambda line: None)
    assert len(engine.asked) == before  # the other answers do not depend on it


def test_nothing_is_forced_without_tagged_mode(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    run(replace(job, modes=("direct",), forced=4), lambda line: None)
    assert not [request for request, _ in engine.asked if request.prefix]


def test_a_forced_answer_that_could_not_be_asked_is_empty(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda request, i: "!")
    paths = run(replace(job, modes=("tagged",), forced=2), lambda line: None)
    assert {r["raw_output"] for r in read(paths[1])} == {""}
