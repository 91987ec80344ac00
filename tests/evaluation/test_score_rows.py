"""From records to rows: scores of every slice, means over them, baselines worked by hand; each list scored once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geozero.common.atomic import write_json
from geozero.evaluation.report.build import report
from geozero.evaluation.report.schema import Baseline, ReportInputs, Score
from geozero.evaluation.report.scores import Sheet, score_table
from geozero.evaluation.result_sets import ModelAnswers, eval_slices, split_of, world_of
from geozero.evaluation.score_rows import (
    by_source,
    evaluation_parts,
    headline_mean,
    headline_scores,
    rows_of,
    run_metrics,
)
from geozero.inference.corpus_job import records_path
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Scores
from geozero.tasks.boxes import Convention
from geozero.tasks.closed import ClosedTask


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


def score_rows(answered: ModelAnswers, sources: Sequence[str]) -> list[dict[str, Any]]:
    return list(rows_of(eval_slices([answered], sources, "norm1000")))


def baseline_rows(answered: ModelAnswers, sources: Sequence[str]) -> list[dict[str, Any]]:
    return evaluation_parts(list(eval_slices([answered], sources, "norm1000")))["baselines"]


ASKED = ("toy_aid", "toy_aid_hard", "toy_rsvqa_lr")


def test_names_say_split_and_world() -> None:
    assert [(split_of(s), world_of(s)) for s in ("toy_aid", "toy_aid_hard", "neon", "aid")] == [
        ("test", "toy"),
        ("test_hard", "toy"),
        ("test", "neon"),
        ("test", "aid"),
    ]


def test_rows_by_source_task_and_question_type(answered: ModelAnswers) -> None:
    rows = score_rows(answered, ASKED)
    direct = pick(rows, mode="direct")
    values = {(r["source"], r["question_type"]): (r["value"], r["n"]) for r in by_source(direct) if r["headline"]}
    assert values == {
        ("toy_aid", None): (0.75, 4),
        ("toy_aid_hard", None): (0.0, 2),
        ("toy_rsvqa_lr", None): (0.5, 4),
        ("toy_rsvqa_lr", "presence"): (1.0, 2),
        ("toy_rsvqa_lr", "count"): (0.0, 2),
    }
    assert all(row["low"] <= row["value"] <= row["high"] for row in direct if row["low"] is not None)
    more = {r["metric"]: (r["value"], r["n"]) for r in by_source(direct) if r["question_type"] is None}
    assert more["accuracy_mean_of_types"] == (0.5, 4) and more["accuracy_without_counts"] == (1.0, 4)
    assert more["count_accuracy"] == more["count_within_10_percent"] == (0.0, 2) and "count_mae" not in more
    assert {row["metric"] for row in direct if row["headline"]} == {"accuracy"}
    for row in rows:
        Score.model_validate(row)


def test_tagged_mode_adds_form_and_words_over_thoughts(answered: ModelAnswers) -> None:
    rows = score_rows(answered, ASKED)
    assert pick(rows, mode="direct", metric="well_formed") == []
    (form,) = pick(rows, source="toy_aid", metric="well_formed")
    (words,) = pick(rows, source="toy_aid", metric="thought_words")
    assert (form["value"], form["n"], form["headline"]) == (0.75, 4, False)
    assert (words["value"], words["n"]) == (3.0, 3)  # over thoughts, and only three answers have one


def test_every_task_has_one_overall_row_a_model_mode_split_and_world(answered: ModelAnswers) -> None:
    rows = score_rows(answered, ASKED)
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
    (one,) = pick(overall, mode="direct", split="test", task="vqa", headline=True)
    (same,) = pick(rows, mode="direct", source="toy_rsvqa_lr", question_type=None, headline=True)
    assert {**one, "source": "toy_rsvqa_lr"} == same


def test_several_sources_of_one_place_are_pooled(tmp_path: Path) -> None:
    for source, n_right, n in (("toy_aid", 1, 1), ("toy_ucm", 0, 3)):
        made = [record(source, "scene_cls", "port", "port" if i < n_right else "", i) for i in range(n)]
        write_records(tmp_path, "direct", source, made)
    rows = score_rows(ModelAnswers("base", tmp_path, ("direct",)), ["toy_aid", "toy_ucm"])
    (overall,) = [row for row in rows if row["source"] is None]
    assert (overall["value"], overall["n"]) == (0.25, 4)  # over records, not over sources
    where = {"model": "base", "mode": "direct", "world": "toy", "split": "test"}
    assert headline_mean(rows, **where) == 50.0  # over sources, and the overall row counts for nothing


def test_the_page_finds_overall_scores_and_their_baselines(answered: ModelAnswers) -> None:
    parts = {"scores": score_rows(answered, ASKED), "baselines": baseline_rows(answered, ASKED)}
    inputs = ReportInputs()
    for name, rows in parts.items():
        inputs.use(name, rows)
    hard, normal = score_table(Sheet(inputs)).groups
    assert (hard.title, normal.title) == (
        "Rendered toy world · hard test split",
        "Rendered toy world · test split",
    )
    shown = {row.label.text: [c.text for c in row.cells[:4] if c] for row in normal.rows if not row.kind}
    assert shown == {
        "Scene classification · toy_aid": ["accuracy", "4", "100.0", "100.0"],
        "Question answering · toy_rsvqa_lr": ["accuracy", "4", "100.0", "100.0"],
    }
    assert "presence" in {row.label.text for row in normal.rows if row.kind == "detail"}


def test_the_headline_mean_goes_over_tasks_not_over_sources_or_types(answered: ModelAnswers) -> None:
    rows = score_rows(answered, ASKED)
    where = {"model": "sft", "mode": "direct", "world": "toy"}
    assert headline_mean(rows, split="test", **where) == pytest.approx(100 * (0.75 + 0.5) / 2)
    assert headline_mean(rows, split="test_hard", **where) == 0.0
    assert headline_mean(rows, **where) == pytest.approx(100 * ((0.75 + 0.0) / 2 + 0.5) / 2)
    assert math.isnan(headline_mean(rows, split="val", **where))


def test_every_list_of_answers_is_scored_once_on_the_way_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"toy_aid": "scene_cls", "toy_ucm": "scene_cls", "toy_rsvqa_lr": "vqa"}
    answered = [ModelAnswers(name, tmp_path / name, ("direct", "tagged", "forced")) for name in ("base", "sft")]
    for model in answered:
        for mode in model.modes:
            for source, task in sources.items():
                texts = [f"I look. <answer>{'port' if i % 2 else 'park'}</answer>" for i in range(10)]
                made = [record(source, task, "port", text, i, question_type="count") for i, text in enumerate(texts)]
                write_records(model.out, mode, source, made)
    lists: list[tuple[str, ...]] = []

    strict = ClosedTask.strict

    def counting(task: ClosedTask, records: RecordList, boxes: Convention) -> Scores:
        lists.append(tuple(records.ids))
        return strict(task, records, boxes)

    monkeypatch.setattr(ClosedTask, "strict", counting)
    parts = evaluation_parts(list(eval_slices(answered, list(sources), "norm1000")))
    for name, rows in parts.items():
        assert rows
        write_json(tmp_path / "data" / f"{name}.json", rows)
    report(tmp_path / "data", tmp_path / "index.html")
    ids = {source: tuple(f"{source}-{i}" for i in range(10)) for source in sources}
    once = [*ids.values(), ids["toy_aid"] + ids["toy_ucm"]]  # the last one stands for both sources together
    assert Counter(lists) == Counter(once * len(answered) * 3)


def test_runs_hold_every_metric_of_a_source_and_the_means_under_the_same_names(answered: ModelAnswers) -> None:
    rows = score_rows(answered, ASKED)
    assert headline_scores(rows)["sft/direct/toy/test"] == pytest.approx(100 * (0.75 + 0.5) / 2)
    metrics = run_metrics(rows)
    assert list(metrics) == [("sft", "direct"), ("sft", "tagged")]
    assert metrics["sft", "direct"] == {
        "toy_aid/scene_cls/accuracy": 0.75,
        "toy_aid_hard/scene_cls/accuracy": 0.0,
        "toy_rsvqa_lr/vqa/accuracy": 0.5,
        "toy_rsvqa_lr/vqa/accuracy_mean_of_types": 0.5,
        "toy_rsvqa_lr/vqa/accuracy_mean_of_types_without_counts": 1.0,
        "toy_rsvqa_lr/vqa/accuracy_without_counts": 1.0,
        "toy_rsvqa_lr/vqa/count_accuracy": 0.0,
        "toy_rsvqa_lr/vqa/count_within_10_percent": 0.0,
        "mean/toy/test": pytest.approx(100 * (0.75 + 0.5) / 2),
        "mean/toy/test_hard": 0.0,
    }


def test_a_new_metric_of_a_task_reaches_rows_comparisons_mlflow_and_the_page(
    answered: ModelAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = ClosedTask.strict

    def with_more(task: ClosedTask, records: RecordList, boxes: Convention) -> Scores:
        scores = strict(task, records, boxes)
        finish = scores.finish
        return replace(scores, finish=lambda sums: {**finish(sums), "error_rate": 1 - finish(sums)["accuracy"]})

    monkeypatch.setattr(ClosedTask, "strict", with_more)
    parts = evaluation_parts(list(eval_slices([answered], ASKED, "norm1000")))
    (row,) = pick(parts["scores"], mode="direct", source="toy_aid", metric="error_rate")
    assert (row["value"], row["n"], row["headline"]) == (0.25, 4, False) and row["low"] <= 0.25 <= row["high"]
    assert pick(parts["comparisons"], metric="error_rate")
    assert run_metrics(parts["scores"])["sft", "direct"]["toy_aid/scene_cls/error_rate"] == 0.25
    for name, rows in parts.items():
        write_json(tmp_path / "data" / f"{name}.json", rows)
    tables = report(tmp_path / "data", tmp_path / "index.html")[1].read_text()
    assert "Scene classification · toy_aid | error_rate | 4 | – | – | 25.0 [0.6–80.6] |" in tables


# -- baselines, by hand ------------------------------------------------------------------------------------------


def guesses_of(tmp_path: Path, source: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    write_records(tmp_path, "direct", source, records)
    rows = baseline_rows(ModelAnswers("base", tmp_path, ("direct",)), [source])
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
