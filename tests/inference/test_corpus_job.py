"""Answers to a corpus: the record format, what is asked again and what is not, kills, errors; a stand-in answers."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT, SUPPORT
from PIL import Image
from stand_in_engine import CLASSES, KINDS, make_model, one_source, stand_in

from geozero.common import progress
from geozero.common.atomic import write_json
from geozero.common.child import job_main
from geozero.common.errors import InputError
from geozero.common.process import ChildFailed
from geozero.corpus.images import store
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus, CorpusWriter, copy_image
from geozero.engines.base import Request, SamplingParams
from geozero.inference import corpus_job, loop
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


def logs(job: CorpusJob) -> list[Path]:
    return sorted(Path(job.out).glob("*/*.jsonl"))


def rewrite(path: str, change: Callable[[Sample], Sample]) -> None:
    """Make a corpus anew with every sample passed through `change`; a white image is there to change to."""
    corpus = Corpus(path)
    rows, samples = list(corpus.image_rows()), list(corpus.samples())
    with CorpusWriter(Path(path), {"made_by": "test"}) as writer:
        for row in rows:
            copy_image(writer, row)
        writer.add_image(white(), "white")
        assert all(writer.add(change(sample)) for sample in samples)


def white() -> Any:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "white").save(buffer, "PNG")
    return store(buffer.getvalue())


def test_what_is_there_is_not_asked_again(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, lines = stand_in(monkeypatch, right), []
    paths = run(job, lines.append)
    labels = [f"{source}, {mode}" for source in ("toy_aid", "toy_rsvqa_lr") for mode in ("direct", "tagged")]
    assert lines[::2] == [f"{label}: 6 questions to ask" for label in labels]
    assert lines[1::2] == [f"{label}: question 6 of 6" for label in labels]
    stamps = {path: path.stat().st_mtime_ns for path in paths}
    lines.clear()
    assert run(job, lines.append) == paths
    assert lines == ["all records are there"]
    assert len(engine.opened) == 1
    assert {path: path.stat().st_mtime_ns for path in paths} == stamps


def test_a_killed_job_loses_at_most_a_chunk(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(request: Request, rollout: int) -> str:
        if len(engine.asked) > 16:  # in the second chunk of the third of four parts
            raise KeyboardInterrupt
        return "x"

    monkeypatch.setattr(loop, "CHUNK", 4)
    engine = stand_in(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        run(job, lambda line: None)
    assert engine.n_closed == 1 and len(engine.asked) == 18
    engine = stand_in(monkeypatch, right)
    paths = run(job, lambda line: None)
    assert len(engine.asked) == 24 - 16
    assert [r["raw_output"] == "x" for r in read(paths[2])] == [True] * 4 + [False] * 2


KILLED = """
import json, sys, time
sys.path.insert(0, {tests!r})
from stand_in_engine import StandInEngine
from geozero import engines
from geozero.inference import corpus_job, loop
def slow(request, rollout):
    time.sleep(0.1)
    return request.id
loop.CHUNK = 2
engines.open_engine = StandInEngine(slow).open
corpus_job.main(json.load(open(sys.argv[1])))
"""


def test_kill_9_in_the_middle_of_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = one_source(tmp_path / "toy_aid", "toy_aid", "scene_cls", n=20)
    job = CorpusJob(str(make_model(tmp_path / "model")), (str(corpus),), str(tmp_path / "out"), ("tagged",))
    write_json(tmp_path / "job.json", job)
    code = KILLED.format(tests=str(SUPPORT))
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path / "job.json"], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (logs(job) and logs(job)[0].read_bytes().count(b"\n") > 5):
            time.sleep(0.01)
        with pytest.raises(InputError, match="another process is answering"):
            run(job, lambda line: None)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL and not records_path(job.out, "tagged", "toy_aid").exists()
    n_kept = 2 * (logs(job)[0].read_bytes().count(b"\n") - 1)
    assert 10 <= n_kept < 20
    engine = stand_in(monkeypatch, lambda request, i: request.id)
    (path,) = run(job, lambda line: None)
    assert len(engine.asked) == 20 - n_kept
    assert [r["raw_output"] for r in read(path)] == [s.id for s in Corpus(corpus).samples()]


@settings(max_examples=20)
@given(cut=st.integers(0, 10_000))
def test_a_log_cut_anywhere_gives_the_same_records(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("cut")
    corpus = one_source(base / "toy_aid", "toy_aid", "scene_cls")
    job = CorpusJob(
        str(make_model(base / "model")), (str(corpus),), str(base / "out"), ("direct",), samples=2, temperature=1.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHUNK", 2)
        stand_in(patch, lambda request, i: f"{request.id} {i}")
        (path,) = run(job, lambda line: None)
        records, whole = path.read_bytes(), logs(job)[0].read_bytes()
        size = cut % (len(whole) + 1)
        logs(job)[0].write_bytes(whole[:size])
        path.with_suffix(".done.json").unlink()
        engine = stand_in(patch, lambda request, i: f"{request.id} {i}")
        run(job, lambda line: None)
    assert path.read_bytes() == records and logs(job)[0].read_bytes() == whole
    assert len(engine.asked) == 6 - 2 * max(0, whole[:size].count(b"\n") - 1)


def test_a_damaged_log_is_refused(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, right)
    paths = run(job, lambda line: None)
    whole = logs(job)[0].read_bytes()
    logs(job)[0].write_bytes(whole.replace(b'"stop"', b'"stop', 1))
    run(job, lambda line: None)  # finished records do not need it
    paths[0].unlink()
    with pytest.raises(InputError, match=r"the answer log is damaged in .*toy_aid\.json\.\w+\.jsonl \(delete it"):
        run(job, lambda line: None)


@pytest.mark.parametrize("lost", ["stamp", "records", "half a stamp"])
def test_lost_records_are_written_again_from_the_log(
    lost: str, job: CorpusJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stand_in(monkeypatch, right)
    paths = run(job, lambda line: None)
    before = paths[1].read_bytes()
    stamp = paths[1].with_suffix(".done.json")
    if lost == "half a stamp":
        stamp.write_text('{"half')
    else:
        (stamp if lost == "stamp" else paths[1]).unlink()
    run(job, lambda line: None)
    assert paths[1].read_bytes() == before and stamp.is_file() and len(engine.opened) == 1


def test_records_of_earlier_versions_are_finished(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their stamps hold the same; they have no answer logs."""
    engine = stand_in(monkeypatch, right)
    run(job, lambda line: None)
    for log in logs(job):
        log.unlink()
    run(job, lambda line: None)
    stamp = json.loads(records_path(job.out, "direct", "toy_aid").with_suffix(".done.json").read_text())
    names = {"split", "max_tokens", "samples", "temperature", "seed", "limit", "boxes", "engine"}
    assert stamp.keys() == names | {"model", "mode", "corpus", "prompts"}
    assert len(engine.opened) == 1


@pytest.mark.parametrize(
    "changed",
    [{"max_tokens": 10}, {"temperature": 1.0}, {"engine": {"max_pixels": 100}}, {"samples": 2}],
)
def test_another_setting_is_asked_again(
    changed: dict[str, Any], job: CorpusJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, right)
    run(job, lambda line: None)
    engine = stand_in(monkeypatch, right)
    run(replace(job, **changed), lambda line: None)
    assert len(engine.asked) == 24
    sampled = replace(job, temperature=1.0)
    run(sampled, lambda line: None)
    engine = stand_in(monkeypatch, right)
    run(replace(sampled, seed=1), lambda line: None)
    assert len(engine.asked) == 24


def test_what_decides_no_answer_asks_nothing(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda request, i: "[250, 250, 750, 750]")
    grounding = one_source(Path(job.out).with_name("toy_dior_rsvg"), "toy_dior_rsvg", "grounding")
    job = replace(job, corpora=(*job.corpora, str(grounding)), limit=4)
    run(job, lambda line: None)
    engine = stand_in(monkeypatch, right)
    paths = run(replace(job, engine={"name": "transformers", "memory": 0.5}, seed=1, boxes="pixels"), lambda line: None)
    assert engine.asked == []  # another engine, the seed of a greedy answer, how boxes are read
    assert {r["reward"] for r in read(paths[4])} == {0.0}  # yet rewards are those of the new convention
    run(replace(job, limit=6), lambda line: None)
    assert len(engine.asked) == 6 * (6 - 4)


def test_a_corrected_label_asks_nothing(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, lambda request, i: "<answer>river</answer>")
    before = read(run(job, lambda line: None)[1])
    first = before[0]["id"]
    rewrite(job.corpora[0], lambda s: replace(s, answer="river") if s.id == first else s)
    after = read(run(job, lambda line: None)[1])
    assert len(engine.asked) == 24
    assert after[1:] == before[1:] and before[0]["label"] != "river"
    assert after[0] == before[0] | {"label": "river", "reward": 1.0}


def test_a_changed_image_asks_its_questions_again(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    before = read(run(job, lambda line: None)[0])
    first = before[0]["id"]
    rewrite(job.corpora[0], lambda s: replace(s, image_id=white().image_id) if s.id == first else s)
    engine.rule = lambda request, i: "I see snow."
    after = read(run(job, lambda line: None)[0])
    assert [request.id for request, _ in engine.asked[24:]] == [first] * 2  # once in each mode
    assert engine.asked[-1][0].image == white().data
    assert after[0]["raw_output"] == "I see snow." and after[1:] == before[1:]


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


def test_new_questions_and_another_prompt_are_asked(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    run(job, lambda line: None)
    one_source(Path(job.corpora[0]), "toy_aid", "scene_cls", n=7)
    run(job, lambda line: None)
    assert len(engine.asked) == 24 + 2
    monkeypatch.setattr("geozero.tasks.base.SYSTEM_PROMPT", "Think.")
    run(job, lambda line: None)
    assert len(engine.asked) == 26 + 13  # tagged mode alone has a system prompt


def test_the_limit_goes_by_stable_hash_and_grows_without_moving(job: CorpusJob) -> None:
    samples = list(Corpus(job.corpora[0]).samples())
    assert choose(samples, None) == choose(samples, 6) == choose(samples, 99) == samples
    four, three = choose(samples, 4), choose(samples, 3)
    assert set(three) < set(four)
    assert four == [s for s in samples if s in four]  # stored order
    assert choose(list(reversed(samples)), 3) == list(reversed(three))
    assert choose([s for s in samples if s != three[0]], 2) == three[1:]


def test_failed_requests_are_counted_and_wrong(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHUNK", 4)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    engine = stand_in(monkeypatch, lambda request, i: "!" if "0" in request.messages[-1]["content"] else "yes")
    lines: list[str] = []
    job = replace(job, corpora=job.corpora[1:], modes=("direct",))
    (path,) = run(job, lines.append)
    first = next(i for i, s in enumerate(Corpus(job.corpora[0]).samples()) if s.question == "Question 0?")
    failure = "1 failed, the first: the image has no pixels"
    assert lines[1:] == [
        f"toy_rsvqa_lr, direct: {f'4 of 6, {failure}' if first < 4 else 'question 4 of 6'}",
        f"toy_rsvqa_lr, direct: 6 of 6, {failure}",
    ]
    failed = read(path)[first]
    assert (failed["finish_reason"], failed["raw_output"], failed["reward"]) == ("error", "", 0.0)
    assert failed["error"] == "the image has no pixels"
    path.unlink()
    run(job, lines.append)
    assert read(path)[first] == failed and len(engine.asked) == 6  # a failure counts as an answer


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


def test_several_gpus_answer_parts_of_the_questions(
    job: CorpusJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process sees one GPU and answers its part; the last one writes the records and asks nothing."""
    seen: list[tuple[str, str | None]] = []
    asked: list[list[str]] = []

    def run_here(module: str, made: CorpusJob, file: Path, log: Path, on_line: Any, env: Any = None) -> None:
        engine = stand_in(monkeypatch, right)
        run(made, lambda line: None)
        seen.append((made.shard, env and env["CUDA_VISIBLE_DEVICES"]))
        asked.append([request.messages[-1]["content"] + request.id for request, _ in engine.asked])

    monkeypatch.setattr(corpus_job, "run_job", run_here)
    monkeypatch.setattr(corpus_job.process, "visible_gpus", lambda: ["0", "GPU-aaaa", "2"])
    monkeypatch.setattr(corpus_job, "ThreadPoolExecutor", lambda n: ThreadPoolExecutor(1))  # they share this process
    corpus_job.run_in_child(job, tmp_path / "log")
    assert seen == [("0/3", "0"), ("1/3", "GPU-aaaa"), ("2/3", "2"), ("0/1", None)]
    whole = [name for part in asked[:3] for name in part]
    assert all(asked[:3]) and not asked[3] and len(whole) == 2 * 12 and len(set(whole)) == 12
    assert len(logs(job)) == 4 and not [path for path in logs(job) if "of3" in path.name]
    straight = replace(job, out=str(tmp_path / "straight"))
    stand_in(monkeypatch, right)
    for path, other in zip(run(job, lambda line: None), run(straight, lambda line: None), strict=True):
        assert read(path) == read(other)


def test_records_of_a_job_file_stand_where_records_path_says(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, right)
    given = Path(job.out).with_name("job.json")
    write_json(given, job)
    job_main(corpus_job.main, str(given))
    assert len(read(records_path(job.out, "tagged", "toy_rsvqa_lr"))) == 6


def test_swapped_answers_follow_the_thought_about_another_sample(
    job: CorpusJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request, i: int) -> str:
        return "forest</answer>" if request.prefix else f"about {request.id} <answer>forest</answer>"

    engine = stand_in(monkeypatch, answer)
    job = replace(job, modes=("tagged",), swapped=4)
    assert job.prompt_modes == ("tagged", "swapped")
    tagged, swapped = (read(path) for path in run(job, lambda line: None)[:2])
    assert len(swapped) == 4 and {r["id"] for r in swapped} < {r["id"] for r in tagged}
    texts = {r["id"]: r["raw_output"] for r in swapped}
    for name, text in texts.items():
        assert name not in text and text.endswith("<answer>forest</answer>")
    assert {text.split()[1] for text in texts.values()} <= texts.keys()  # each thought is that about one of the others
    before = len(engine.asked)
    run(job, lambda line: None)
    assert len(engine.asked) == before


def test_prefilled_answers_leave_no_room_for_a_thought(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, lambda request, i: "forest</answer>" if request.prefix else right(request, i))
    paths = run(replace(job, modes=("tagged",), prefilled=4), lambda line: None)
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
    run(replace(job, modes=("tagged",), prefilled=4), lambda line: None)
    assert len(engine.asked) == before  # nothing is asked again
    run(replace(job, modes=("tagged",), prefilled=None), lambda line: None)
    assert len(engine.asked) == before  # the other answers do not depend on it


def test_nothing_is_prefilled_without_tagged_mode(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, right)
    run(replace(job, modes=("direct",), prefilled=4), lambda line: None)
    assert not [request for request, _ in engine.asked if request.prefix]


def test_a_prefilled_answer_that_failed_is_empty(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda request, i: "!")
    paths = run(replace(job, modes=("tagged",), prefilled=2), lambda line: None)
    assert {r["raw_output"] for r in read(paths[1])} == {""}


def test_the_prefixes_of_swapped_thoughts_come_in_one_order_whatever_the_process(tmp_path: Path) -> None:
    """Their hash is in the stamp of finished records, which another process reads."""
    code = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from geozero.inference.corpus_job import _Output
names = ["vqa", "caption", "scene_cls", "grounding", "detection"]
made = SimpleNamespace(prompt_mode="swapped", job=SimpleNamespace(out=sys.argv[1]), source="s")
made.samples = [SimpleNamespace(id=f"{name}-{n}", task=name) for name in names for n in range(2)]
path = Path(sys.argv[1]) / "tagged/s.json"
path.parent.mkdir(exist_ok=True)
path.write_text("[]")
print(json.dumps(_Output.prefixes.func(made)))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "1234"
    }
    assert len(said) == 1
