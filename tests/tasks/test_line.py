"""The two tasks of a user's own data through the whole line: ingest, raw, difficulty, training rows, scores, page."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from difficulty_world import Opener, make_model, sample
from PIL import Image
from stand_in_engine import stand_in

from geozero import params
from geozero.corpus.sample import Sample, digest, stable_unit
from geozero.corpus.store import Corpus
from geozero.curation.card.data_card import write_card
from geozero.curation.card.inspect import inspect
from geozero.curation.decontamination.merge import raw
from geozero.curation.ingest.ingest import ingest
from geozero.curation.release.exporting import export
from geozero.curation.release.importing import import_release
from geozero.difficulty.selection.select import select
from geozero.engines.base import Request
from geozero.evaluation.evaluate import evaluate
from geozero.evaluation.report.build import report
from geozero.evaluation.report.from_results import collect
from geozero.inference.corpus_job import CorpusJob, run
from geozero.inference.eval_json import read_items
from geozero.sources import get, with_options
from geozero.tasks import get as task_of
from geozero.training.dataset import swift_rows
from geozero.training.grpo.rewards import answer_rewards

SIDE = 64
N = {"train": 24, "test": 6}
WRONG = {"multiple_choice": "none of them", "detection": "[[0, 0, 20, 20]]"}


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    noise = [int(stable_unit(f"{number}/{i}") * 256) for i in range(64)]
    small = Image.new("L", (8, 8))
    small.putdata(noise)
    small.convert("RGB").resize((SIDE, SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ships in COCO's form, and a table of questions with options: `boxes/`, `table/`."""
    root = tmp_path_factory.mktemp("data")
    for split, n in N.items():
        images = [{"id": i, "file_name": f"{split}{i}.png", "width": SIDE, "height": SIDE} for i in range(n)]
        ships = [(i, [4 + 10 * k, 2 * k, 8, 12]) for i in range(n) for k in range(i % 4)]
        found = [{"id": k, "image_id": i, "category_id": 1, "bbox": box} for k, (i, box) in enumerate(ships)]
        rest = [{"id": 10_000 + i, "image_id": i, "category_id": 2, "bbox": [40, 40, 20.5, 20]} for i in range(n)]
        names = [{"id": 1, "name": "ship"}, {"id": 2, "name": "harbour"}]
        for folder, start in (("boxes", 0), ("table", 500)):
            (root / folder).mkdir(exist_ok=True)
            for i in range(n):
                (root / folder / f"{split}{i}.png").write_bytes(image(start + 100 * (split == "test") + i))
        content = {"images": images, "annotations": found + rest, "categories": names}
        (root / "boxes" / f"instances_{split}.json").write_text(json.dumps(content))
    rows = [
        {
            "image": f"{split}{i}.png",
            "split": split,
            "question": f"What is seen at place {i}?",
            "options": ["a road", "a river", "the sea"],
            "answer": ("a road", "B", "the sea")[i % 3],
        }
        for split, n in N.items()
        for i in range(n)
    ]
    (root / "table" / "questions.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="module")
def corpora(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("corpora")
    ships = with_options(get("coco"), ["name=ships", "questions=detection"])
    choices = with_options(get("questions"), ["name=choices"])
    ingest(ships, data / "boxes", out / "ships")
    ingest(choices, data / "table", out / "choices")
    return {"detection": out / "ships", "multiple_choice": out / "choices"}


def of_task(corpus: Path, task: str, split: str | None = None) -> list[Sample]:
    return [s for s in Corpus(corpus).samples() if s.task == task and split in (s.split, None)]


def test_the_generic_adapters_give_samples(corpora: dict[str, Path]) -> None:
    detections = of_task(corpora["detection"], "detection")
    with_none = [s for s in detections if s.answer == "[]"]
    assert len(detections) == 2 * sum(N.values()) and 0 < len(with_none) < len(detections) / 3
    assert {s.question_type for s in detections} == {"ship", "harbour"} and all(s.box is None for s in detections)
    assert any(s.answer == "[[4, 0, 12, 12], [14, 2, 22, 14], [24, 4, 32, 16]]" for s in detections)
    choices = of_task(corpora["multiple_choice"], "multiple_choice")
    assert len(choices) == sum(N.values()) and choices[0].classes == ("a road", "a river", "the sea")
    assert "\nA. a road\nB. a river\nC. the sea\n" in choices[0].question
    assert [r["reason"] for r in Corpus(corpora["detection"]).rejects()] == []


def test_every_box_of_a_sample_is_shown(corpora: dict[str, Path], tmp_path: Path) -> None:
    samples = list(Corpus(corpora["detection"]).samples())
    inspect(corpora["detection"], len(samples), tmp_path / "look.html")
    boxes = sum(len(task_of(s.task).true_boxes(s)) for s in samples)
    assert (tmp_path / "look.html").read_text().count('<span style="left:') == boxes > len(samples)


def test_too_many_boxes_are_refused_and_listed(data: Path, tmp_path: Path) -> None:
    ships = with_options(get("coco"), ["name=ships", "questions=detection", "most_boxes=2"])
    ingest(ships, data / "boxes", tmp_path / "c")
    assert {(r["reason"]) for r in Corpus(tmp_path / "c").rejects()} == {"too_many_boxes"}
    assert len(list(Corpus(tmp_path / "c").rejects())) == sum(i % 4 == 3 for n in N.values() for i in range(n))


@pytest.mark.parametrize("task", ["detection", "multiple_choice"])
def test_the_line(task: str, corpora: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = task_of(task)
    merged = tmp_path / "raw"
    raw([corpora[task]], [], merged)
    samples = {s.id: s for s in Corpus(corpora[task]).samples()}
    asked = {(s.question, s.image_id): s for s in samples.values()}
    order = sorted(samples)

    def by_place(request: Request, seed: int) -> str:
        """Sample number i of all is right in i mod 9 of 8 answers."""
        found = asked[request.messages[-1]["content"].removeprefix("<image>"), digest(request.image)]
        right = seed % 8 < order.index(found.id) % 9
        return task_of(found.task).target(found) if right else WRONG.get(found.task, "no")

    sample(merged, [make_model(tmp_path / "model")], tmp_path / "store", k=8, open_engine=Opener(by_place))
    places = (tmp_path / "store", tmp_path / "instruct", tmp_path / "hard")
    numbers = select(merged, *places, params.Select(), html=tmp_path / "selection.html")
    bands = numbers["bands_by_task"][task]
    assert bands["easy"] > 0 and bands["hard_learnable"] > 0
    # the same wrong answer every time makes a closed label suspect; wrong boxes are merely unsolved
    assert (bands["suspect"] > 0, bands["hard_unsolved"] > 0) == (rules.closed, not rules.closed)

    instruct, hard = Corpus(tmp_path / "instruct"), Corpus(tmp_path / "hard")
    swift_rows(instruct, "direct", "norm1000", tmp_path / "sft.jsonl")
    swift_rows(hard, "tagged", "norm1000", tmp_path / "rl.jsonl")
    taught = [json.loads(line)["messages"][-1]["content"] for line in (tmp_path / "sft.jsonl").open()]
    assert set(taught) <= {task_of(s.task).target(s) for s in samples.values()}
    rows = [json.loads(line)["sample"] for line in (tmp_path / "rl.jsonl").open()]
    right = [f"I look. <answer>{task_of(s.task).target(s)}</answer>" for s in map(Sample.from_json, rows)]
    assert min(answer_rewards(right, rows, "norm1000")) > 0.9
    wrong = [f"I look. <answer>{WRONG[task]}</answer>" for s in rows]
    assert max(answer_rewards(wrong, rows, "norm1000")) < 0.9

    test = of_task(corpora[task], task, "test")
    stand_in(monkeypatch, lambda request, i: f"I look. <answer>{by_place(request, 2)}</answer>")
    model = str(make_model(tmp_path / "model"))
    job = CorpusJob(model, (str(corpora[task]),), str(tmp_path / "out"), ("tagged",))
    (records,) = run(job, lambda line: None)
    mine: list[dict[str, Any]] = [r for r in json.loads(records.read_text()) if r["task"] == task]
    (tmp_path / "records.json").write_text(json.dumps(mine))
    found = evaluate(task, "strict", tmp_path / "records.json", tmp_path / "scores" / "sft" / "mine.json", resamples=50)
    assert found["n"] == len(test) and 0 < found["metrics"][rules.headline] < 1
    assert found["problems"]["n"] == 0
    assert [r["reward"] for r in mine] == [rules.reward(r["raw_output"], samples[r["sample"]], "tagged") for r in mine]

    inputs = collect(tmp_path / "scores", 10)
    assert {s.task for s in inputs.scores} == {task} and not inputs.faults
    assert {output.right for item in inputs.gallery for output in item.answers} == {True, False}
    if task == "detection":
        assert max(len(item.boxes) for item in inputs.gallery) > 1
    page = report(tmp_path / "scores", tmp_path / "page" / "index.html")[0].read_text(encoding="utf-8")
    assert rules.title in page
    assert write_card(Corpus(merged), of_task(merged, task)[:2], tmp_path / "card")


@pytest.mark.parametrize("task", ["detection", "multiple_choice"])
def test_a_release_is_read_back(task: str, corpora: dict[str, Path], tmp_path: Path) -> None:
    export(tmp_path / "release", {"hard": corpora[task]}, [corpora[task]])
    items = json.loads((tmp_path / "release" / "GeoZero-Hard.json").read_text())
    assert task in {item["task_type"][0] for item in items}
    kept = of_task(corpora[task], task, "train")
    import_release(tmp_path / "release", tmp_path / "back", file="GeoZero-Hard.json")
    back = of_task(tmp_path / "back", task)
    assert sorted(s.question for s in back) == sorted(s.question for s in kept)
    if task == "detection":
        assert {len(task_of(task).true_boxes(s)) for s in back} == {0, 1, 2, 3}
    else:
        assert {s.answer for s in back} == {"A", "B", "C"}
    (name,) = (tmp_path / "release" / "eval").glob(f"*_{task}.json")
    asked = read_items(name, task)
    assert all(one.fault is None for one in asked)
    assert sorted(map(str, (one.label for one in asked))) == sorted(
        s.answer for s in of_task(corpora[task], task, "test")
    )
