"""From records to the page: score rows and what stands over them, baselines by hand, the gallery, the goals."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stand_in_engine import make_model, one_source, stand_in

from geozero.common.atomic import write_json
from geozero.corpus.store import Corpus
from geozero.engines.base import Request
from geozero.evaluation import score_rows as score_rows_module
from geozero.evaluation.goals import method_goals, resource_goals
from geozero.evaluation.report.schema import Baseline, Score
from geozero.evaluation.report.scores import worlds
from geozero.evaluation.result_sets import ModelAnswers, split_of, world_of
from geozero.evaluation.score_rows import baseline_rows, by_source, gallery, headline_mean, probe_rows, score_rows
from geozero.inference.corpus_job import CorpusJob, records_path, run

SOURCES = {
    "toy_aid": "scene_cls",
    "toy_aid_hard": "scene_cls",
    "toy_rsvqa_lr": "vqa",
    "toy_rsicd": "caption",
    "toy_dior_rsvg": "grounding",
    "neon": "vqa",
}


def record(source: str, task: str, label: Any, pred: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{source}-{number}",
        "task": task,
        "source": source,
        "raw_output": pred,
        "pred": pred,
        "label": label,
        "image_path": f"{source}/{number}",
        "width": 100,
        "height": 100,
        "question_type": None,
        **more,
    }


def write_records(out: Path, mode: str, source: str, records: list[dict[str, Any]]) -> None:
    path = records_path(out, mode, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, records)


def pick(rows: list[dict[str, Any]], **where: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[k] == v for k, v in where.items())]


@pytest.fixture
def answered(tmp_path: Path) -> ModelAnswers:
    """Four scenes (three right), two of the hard world (none right), four questions (presence 2/2, count 0/2)."""
    scenes = [record("toy_aid", "scene_cls", "forest", "forest" if i else "river", i) for i in range(4)]
    hard = [record("toy_aid_hard", "scene_cls", "forest", "river", i) for i in range(2)]
    questions = [
        record("toy_rsvqa_lr", "vqa", ("yes", "2")[i % 2], "yes", i, question_type=("presence", "count")[i % 2])
        for i in range(4)
    ]
    for mode in ("direct", "tagged"):
        for source, records in (("toy_aid", scenes), ("toy_aid_hard", hard), ("toy_rsvqa_lr", questions)):
            if mode == "tagged":  # a thought of three words, but for the first record, which has none
                texts = [f"{'one two three ' if i else ''}<answer>{r['pred']}</answer>" for i, r in enumerate(records)]
                texts[-1] = texts[-1].replace("</answer>", "")  # not well formed: the text as a whole is the answer
                records = [{**r, "raw_output": text} for r, text in zip(records, texts, strict=True)]
            write_records(tmp_path / "sft", mode, source, records)
    return ModelAnswers("sft", tmp_path / "sft", ("direct", "tagged"))


ASKED = ("toy_aid", "toy_aid_hard", "toy_rsvqa_lr")


def test_names_say_split_and_world() -> None:
    assert [(split_of(s), world_of(s)) for s in ("toy_aid", "toy_aid_hard", "neon", "aid")] == [
        ("test", "toy"),
        ("test_hard", "toy"),
        ("test", "neon"),
        ("test", "aid"),
    ]


def test_rows_by_source_task_and_question_type(answered: ModelAnswers) -> None:
    rows = list(score_rows([answered], ASKED, "norm1000"))
    direct = pick(rows, mode="direct")
    values = {(r["source"], r["question_type"]): (r["value"], r["n"]) for r in by_source(direct)}
    assert values == {
        ("toy_aid", None): (0.75, 4),
        ("toy_aid_hard", None): (0.0, 2),
        ("toy_rsvqa_lr", None): (0.5, 4),
        ("toy_rsvqa_lr", "presence"): (1.0, 2),
        ("toy_rsvqa_lr", "count"): (0.0, 2),
    }
    assert all(row["low"] <= row["value"] <= row["high"] for row in direct)
    assert {row["headline"] for row in direct} == {True}
    for row in rows:
        Score.model_validate(row)


def test_tagged_mode_adds_form_and_words_over_thoughts(answered: ModelAnswers) -> None:
    rows = list(score_rows([answered], ASKED, "norm1000"))
    assert pick(rows, mode="direct", metric="well_formed") == []
    (form,) = pick(rows, source="toy_aid", metric="well_formed")
    (words,) = pick(rows, source="toy_aid", metric="thought_words")
    assert (form["value"], form["n"], form["headline"]) == (0.75, 4, False)
    assert (words["value"], words["n"]) == (3.0, 3)  # over thoughts, and only three answers have one


def test_every_task_has_one_overall_row_a_model_mode_split_and_world(answered: ModelAnswers) -> None:
    rows = list(score_rows([answered], ASKED, "norm1000"))
    overall = [row for row in rows if row["source"] is None]
    assert {row["question_type"] for row in overall} == {None}
    places = Counter((r["mode"], r["split"], r["world"], r["task"], r["metric"]) for r in overall)
    assert set(places.values()) == {1}
    headlines = [place[:4] for place in places if place[4] == "accuracy"]
    assert sorted(headlines) == sorted(
        (mode, split, "toy", task)
        for mode in ("direct", "tagged")
        for split, task in (("test", "scene_cls"), ("test", "vqa"), ("test_hard", "scene_cls"))
    )
    (one,) = pick(overall, mode="direct", split="test", task="vqa")
    (same,) = pick(rows, mode="direct", source="toy_rsvqa_lr", question_type=None)
    assert {**one, "source": "toy_rsvqa_lr"} == same


def test_several_sources_of_one_place_are_pooled(tmp_path: Path) -> None:
    for source, n_right, n in (("toy_aid", 1, 1), ("toy_ucm", 0, 3)):
        made = [record(source, "scene_cls", "port", "port" if i < n_right else "", i) for i in range(n)]
        write_records(tmp_path, "direct", source, made)
    rows = list(score_rows([ModelAnswers("base", tmp_path, ("direct",))], ["toy_aid", "toy_ucm"], "norm1000"))
    (overall,) = [row for row in rows if row["source"] is None]
    assert (overall["value"], overall["n"]) == (0.25, 4)  # over records, not over sources
    where = {"model": "base", "mode": "direct", "world": "toy", "split": "test"}
    assert headline_mean(rows, **where) == 50.0  # over sources, and the overall row counts for nothing


def test_the_page_finds_overall_scores_and_their_baselines(answered: ModelAnswers) -> None:
    rows = [Score.model_validate(row) for row in score_rows([answered], ASKED, "norm1000")]
    guesses = [Baseline.model_validate(row) for row in baseline_rows(answered, ASKED, "norm1000")]
    (toy,) = worlds(rows, guesses)
    assert {(h.title, h.split) for h in toy.headlines} == {
        ("Scene classification", "Hard test split"),
        ("Question answering", "Test split"),
    }
    table = next(t for t in toy.tables if t.split == "test")
    questions = next(g for g in table.groups if g.task == "vqa")
    assert [(r.label, r.kind, r.chance) for r in questions.rows if r.metric == "accuracy"] == [
        ("accuracy", "main", "100.0")
    ]
    assert {"toy_rsvqa_lr", "toy_rsvqa_lr · presence"} < {r.label for r in questions.details}


def test_the_headline_mean_goes_over_tasks_not_over_sources_or_types(answered: ModelAnswers) -> None:
    rows = list(score_rows([answered], ASKED, "norm1000"))
    where = {"model": "sft", "mode": "direct", "world": "toy"}
    assert headline_mean(rows, split="test", **where) == pytest.approx(100 * (0.75 + 0.5) / 2)
    assert headline_mean(rows, split="test_hard", **where) == 0.0
    assert headline_mean(rows, **where) == pytest.approx(100 * ((0.75 + 0.0) / 2 + 0.5) / 2)
    assert math.isnan(headline_mean(rows, split="val", **where))


# -- baselines, by hand ------------------------------------------------------------------------------------------


def guesses_of(tmp_path: Path, source: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    write_records(tmp_path, "direct", source, records)
    rows = list(baseline_rows(ModelAnswers("base", tmp_path, ("direct", "tagged")), [source], "norm1000"))
    for row in rows:
        Baseline.model_validate(row)
    return rows


def test_closed_questions_are_guessed_by_type(tmp_path: Path) -> None:
    labels = [("yes", "presence"), ("yes", "presence"), ("no", "presence"), ("1", "count"), ("2", "count")]
    made = [record("toy_rsvqa_lr", "vqa", y, "?", i, question_type=t) for i, (y, t) in enumerate(labels)]
    rows = {row["question_type"]: row for row in guesses_of(tmp_path, "toy_rsvqa_lr", made)}
    assert (rows["presence"]["n"], rows["presence"]["majority"], rows["presence"]["chance"]) == (3, 2 / 3, 1 / 2)
    assert (rows["count"]["n"], rows["count"]["majority"], rows["count"]["chance"]) == (2, 1 / 2, 1 / 2)
    assert (rows[None]["n"], rows[None]["majority"]) == (5, pytest.approx((2 + 1) / 5))  # the best answer a type
    assert rows[None]["chance"] == pytest.approx(1 / 2)
    assert rows[None]["metric"] == "accuracy"


def test_scenes_are_guessed_evenly_over_classes(tmp_path: Path) -> None:
    made = [record("toy_aid_hard", "scene_cls", y, "?", i) for i, y in enumerate(["port", "port", "port", "river"])]
    (row,) = guesses_of(tmp_path, "toy_aid_hard", made)
    assert (row["chance"], row["majority"], row["split"], row["world"]) == (0.5, 0.75, "test_hard", "toy")


def test_captions_are_guessed_from_others_and_by_the_most_common_sentence(tmp_path: Path) -> None:
    # two images: whoever takes the other's first sentence shares no word, the common sentence fits both
    labels = [["a red ship", "some water"], ["many green trees", "some water"]]
    made = [record("toy_rsicd", "caption", label, "?", i) for i, label in enumerate(labels)]
    (row,) = guesses_of(tmp_path, "toy_rsicd", made)
    assert (row["metric"], row["chance"], row["majority"], row["n"]) == ("ROUGE-L", 0.0, 1.0, 2)
    alike = [record("toy_rsicd", "caption", ["a red ship"], "?", i) for i in range(3)]
    (row,) = guesses_of(tmp_path, "toy_rsicd", alike)
    assert (row["chance"], row["majority"]) == (1.0, 1.0)


def test_boxes_are_guessed_from_others_and_by_the_median_box(tmp_path: Path) -> None:
    # in pixels, whatever the model's own convention; the side-wise median of three is the second box
    labels = ["[0, 0, 20, 20]", "[40, 40, 60, 60]", "[80, 80, 100, 100]"]
    made = [record("toy_dior_rsvg", "grounding", label, "?", i) for i, label in enumerate(labels)]
    (row,) = guesses_of(tmp_path, "toy_dior_rsvg", made)
    assert (row["metric"], row["chance"], row["majority"]) == ("acc@0.5", 0.0, pytest.approx(1 / 3))
    same = [record("toy_dior_rsvg", "grounding", "[10, 10, 30, 30]", "?", i) for i in range(4)]
    (row,) = guesses_of(tmp_path, "toy_dior_rsvg", same)
    assert (row["chance"], row["majority"]) == (1.0, 1.0)
    (row,) = guesses_of(tmp_path, "toy_dior_rsvg", same[:1])  # nobody else to take a box from
    assert (row["chance"], row["majority"]) == (0.0, 1.0)


# -- gallery -----------------------------------------------------------------------------------------------------


@pytest.fixture
def corpora(tmp_path: Path) -> list[Path]:
    return [one_source(tmp_path / name, name, task, n=8) for name, task in SOURCES.items()]  # type: ignore[arg-type]


def answer(
    tmp_path: Path,
    corpora: list[Path],
    name: str,
    rule: Callable[[Request, int], str],
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None = None,
) -> ModelAnswers:
    stand_in(monkeypatch, rule)
    model, out = make_model(tmp_path / name, name.encode()), tmp_path / f"answers-{name}"
    run(CorpusJob(str(model), tuple(map(str, corpora)), str(out), ("tagged",), limit=limit), lambda line: None)
    return ModelAnswers(name, out, ("tagged",))


def test_the_gallery_spreads_over_sources(tmp_path: Path, corpora: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    one_source(corpora[0], "toy_aid", "scene_cls", n=2)
    before = answer(tmp_path, corpora, "sft", lambda r, i: "<answer>no</answer>", monkeypatch)
    after = answer(tmp_path, corpora, "rl", lambda r, i: "trees <answer>yes</answer>", monkeypatch)
    items = list(gallery(before, after, corpora, "norm1000", 20))
    counts = Counter(item["source"] for item in items)
    assert sum(counts.values()) == 20
    assert counts["toy_aid"] == 2  # all it has
    assert sorted(counts.values())[1:] == [3, 3, 4, 4, 4]
    assert len(list(gallery(before, after, corpora, "norm1000", 99))) == 42
    assert [i["id"] for i in gallery(before, after, corpora, "norm1000", 20)] == [i["id"] for i in items]
    item = next(i for i in items if i["source"] == "toy_rsvqa_lr")
    image = Image.open(io.BytesIO(base64.b64decode(item["image_jpeg_base64"])))
    assert (image.format, image.size, item["split"]) == ("JPEG", (40, 20), "test")
    assert item["before"] == {
        "thought": "",
        "answer": "no",
        "raw": "<answer>no</answer>",
        "reward": 0.0,
        "box": None,
    }
    assert (item["after"]["thought"], item["after"]["answer"]) == ("trees", "yes")
    hard = next(i for i in items if i["source"] == "toy_aid_hard")
    assert hard["split"] == "test_hard"


def test_the_gallery_shows_what_was_answered(
    tmp_path: Path, corpora: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answer(tmp_path, corpora, "sft", lambda r, i: "x", monkeypatch, limit=3)
    after = answer(tmp_path, corpora, "rl", lambda r, i: "x", monkeypatch, limit=2)
    items = list(gallery(before, after, corpora, "norm1000", 48))
    assert Counter(i["source"] for i in items) == dict.fromkeys(SOURCES, 2)  # a limit must not empty it


def test_boxes_in_the_gallery_are_pixels(tmp_path: Path, corpora: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [path for path in corpora if path.name == "toy_dior_rsvg"]
    before = answer(tmp_path, boxes, "sft", lambda r, i: "<answer>[0, 0]</answer>", monkeypatch)
    after = answer(tmp_path, boxes, "rl", lambda r, i: "<answer>[250, 250, 750, 750]</answer>", monkeypatch)
    item = next(gallery(before, after, boxes, "norm1000", 1))
    assert item["box"] == (10.0, 5.0, 30.0, 15.0)  # of an image of 40 by 20
    assert item["answer"] == "[250, 250, 750, 750]"  # its text stands beside the model's, so in the same units
    assert item["after"]["box"] == pytest.approx((10.0, 5.0, 30.0, 15.0))
    assert (item["after"]["reward"], item["before"]["box"], item["before"]["reward"]) == (pytest.approx(1.0), None, 0.0)
    item = next(gallery(before, after, boxes, "pixels", 1))
    assert item["after"]["box"] == (250.0, 250.0, 750.0, 750.0)


def test_a_probes_right_box_is_written_as_the_models(corpora: list[Path]) -> None:
    boxes = next(path for path in corpora if path.name == "toy_dior_rsvg")
    sample = next(Corpus(boxes).samples("test"))
    (row,) = probe_rows([(sample, {0: "here <answer>[250, 250, 750, 750]</answer>"})], [boxes], "norm1000")
    assert row["answer"] == row["steps"][0]["answer"] == "[250, 250, 750, 750]"


def test_a_source_without_test_samples_has_no_place_in_the_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = one_source(tmp_path / "neon", "neon", "vqa")
    other = one_source(tmp_path / "toy_aid", "toy_aid", "scene_cls", split="train")
    answers = answer(tmp_path, [tested], "sft", lambda r, i: "x", monkeypatch)
    assert len(list(gallery(answers, answers, [other, tested], "norm1000", 4))) == 4
    assert len(Corpus(other)) == 6


# -- goals -------------------------------------------------------------------------------------------------------

GUESSES = [
    {"source": "toy_aid", "task": "scene_cls", "question_type": None, "chance": 0.125, "majority": 0.15},
    {"source": "toy_rsvqa_lr", "task": "vqa", "question_type": "presence", "chance": 0.5, "majority": 0.55},
    {"source": "toy_rsvqa_lr", "task": "vqa", "question_type": None, "chance": 0.3, "majority": 0.5},
    {"source": "toy_rsvqa_lr", "task": "vqa", "question_type": "count", "chance": 0.1, "majority": 0.2},
]


def row(model: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "mode": "direct",
        "split": "test",
        "world": "toy",
        "task": "scene_cls",
        "source": "toy_aid",
        "question_type": None,
        "metric": "accuracy",
        "headline": True,
        "value": value,
        "n": 10,
        **more,
    }


def goal(key: str, rows: list[dict[str, Any]]) -> tuple[bool | None, str, str]:
    found = next(g for g in method_goals(rows, GUESSES) if g.key == key)
    return found.ok, found.reached, found.note


def test_the_base_must_stay_near_chance_on_every_closed_type() -> None:
    presence = {"task": "vqa", "source": "toy_rsvqa_lr", "question_type": "presence"}
    rows = [row("base", 0.15), row("base", 0.54, **presence)]
    noise = [
        row("base", 0.9, task="vqa", source="toy_rsvqa_lr"),  # all question types together
        row("base", 0.9, **presence | {"question_type": "count"}),  # not closed
        row("base", 0.9, mode="tagged"),
        row("base", 0.9, world="neon", source="neon"),
        row("base", 0.9, source=None),  # over all sources: the same records once more
        row("base", 0.9, headline=False),
        row("sft", 0.9),
    ]
    note = "largest of 2 margins: presence test. All: presence test +4.0, scene test +2.5"
    assert goal("base", rows + noise) == (True, "+4.0 points", note)
    ok, reached, note = goal("base", [*rows, row("base", 0.2)])
    assert (ok, reached) == (False, "+7.5 points") and "largest of 3 margins: scene test." in note


def test_sft_must_clear_the_majority_answer_on_the_worst_type() -> None:
    presence = {"task": "vqa", "source": "toy_rsvqa_lr", "question_type": "presence"}
    assert goal("sft", [row("sft", 0.5), row("sft", 0.81, **presence)])[:2] == (True, "+26.0 points")
    ok, reached, note = goal("sft", [row("sft", 0.12), row("sft", 0.81, **presence)])
    assert (ok, reached) == (False, "−3.0 points") and "smallest of 2 margins: scene test." in note


def test_rl_is_compared_with_sft_on_the_hard_split_of_the_toy_world() -> None:
    where = {"mode": "tagged", "split": "test_hard"}
    sft, rl = row("sft", 0.50, **where), row("a2grpo", 0.54, **where)
    assert goal("rl", [sft, rl]) == (True, "+4.0 points", "mean over tasks 50.0 → 54.0")
    assert goal("rl", [sft, row("a2grpo", 0.52, **where)])[0] is False
    doubled = [{**r, "source": None, "value": 0.9} for r in (sft, rl)]
    assert goal("rl", [sft, rl, *doubled]) == goal("rl", [sft, rl])
    assert goal("rl_over_direct", [sft, rl]) == (None, "–", "")
    assert goal("rl_over_direct", [row("sft", 0.54, split="test_hard"), rl])[0] is True  # no loss is enough
    assert goal("rl_over_direct", [row("sft", 0.55, split="test_hard"), rl])[0] is False


def test_form_and_thoughts_are_averaged_by_their_number() -> None:
    common = {"mode": "tagged", "headline": False}
    rows = [
        row("a2grpo", 1.0, metric="well_formed", **common | {"n": 30}),
        row("a2grpo", 0.9, metric="well_formed", **common | {"n": 10}),
        row("a2grpo", 0.0, metric="well_formed", world="neon", **common),
        row("a2grpo", 0.0, metric="well_formed", **common | {"source": None}),
        row("sft", 0.0, metric="well_formed", **common),
        row("a2grpo", 7.9, metric="thought_words", **common),
    ]
    assert goal("well_formed", rows) == (False, "97.5%", "")
    assert goal("thought_words", rows) == (False, "7.9 words", "")
    assert goal("well_formed", rows[:1])[:2] == (True, "100.0%")


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    assert {g.ok for g in method_goals([], [])} == {None}
    assert {g.reached for g in method_goals([], [])} == {"–"}


def test_time_and_memory() -> None:
    assert [(g.ok, g.reached) for g in resource_goals({"data": 600.0, "sft": 120.0}, 6_000_000_000)] == [
        (True, "12.0 min"),
        (True, "6.0 GB"),
    ]
    assert [g.ok for g in resource_goals({"data": 721.0}, 6_100_000_000)] == [False, False]


def test_shares_are_even_and_never_more_than_there_is() -> None:
    assert score_rows_module._shares([8, 8, 8], 7) == [3, 2, 2]
    assert score_rows_module._shares([1, 0, 8], 5) == [1, 0, 4]
    assert score_rows_module._shares([2, 2], 9) == [2, 2]
    assert score_rows_module._shares([], 9) == []
