"""A page from what `geozero evaluate` wrote: names, comparisons, baselines, published scores, images; no crash."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hostile_page import HOSTILE, Outline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paired_records import questions
from PIL import Image
from record_rows import rows as any_rows

from geozero.common.errors import InputError
from geozero.evaluation.benchmark import evaluate_benchmark
from geozero.evaluation.evaluate import evaluate
from geozero.evaluation.report.build import report
from geozero.evaluation.report.exports import escape
from geozero.evaluation.report.from_results import collect, find_results


def scored(folder: Path, name: str, task: str, records: list[Any], protocol: str = "strict", **options: Any) -> Path:
    """Score records as a user does: a file of records, a file of scores in `scores/`."""
    source = folder / "records" / f"{name.replace('/', '-')}.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(records))
    out = folder / "scores" / f"{name}.json"
    evaluate(task, protocol, source, out, resamples=50, **options)
    return out


def page_of(folder: Path, gallery: int = 20) -> Outline:
    return Outline(report(folder / "scores", folder / "page" / "index.html", gallery)[0].read_text(encoding="utf-8"))


def boxes(seed: int, noise: float) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for i in range(40):
        box = [i, i, i + 40, i + 40]
        pred = [round((v + rng.gauss(0, noise)) * 10) for v in box]
        rows.append({"id": f"g{i}", "raw_output": str(pred), "label": str(box), "width": 100, "height": 100})
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three models on two benchmarks, one of them under both protocols."""
    for model, right, seed in (("base", 0.5, 1), ("sft", 0.5, 9), ("a2grpo", 0.95, 1)):
        scored(tmp_path, f"{model}/rsvqa_hr", "vqa", questions(right, seed=seed))
        scored(tmp_path, f"{model}/rsvqa_hr.official", "vqa", questions(right, seed=seed), "official")
        scored(tmp_path, f"{model}/rsvg", "grounding", boxes(1, 30 * (1 - right)))
    return tmp_path


def test_both_protocols_of_a_benchmark_stand_under_each_other(folder: Path) -> None:
    text = page_of(folder).text
    assert "A²GRPO is significantly better than SFT on 2 of 2 test sets." in text
    markdown = (folder / "page" / "scores.md").read_text()
    table = markdown.split("## Scores in percent")[1].split("\n## ")[0].splitlines()
    head = "| Test set | Metric | n | Chance | Majority | Base | SFT | A²GRPO |"
    assert table[2].endswith(head)
    headlines = [line.split(" | ")[1:4] for line in table[4:] if "rsv" in line]
    rows = [row for row in headlines if row[1] in ("accuracy", "acc@0.5")]
    strict, official = (
        "Question answering · rsvqa_hr [strict protocol]",
        "Question answering · rsvqa_hr [official protocol]",
    )
    assert rows == [
        [strict, "accuracy", "200"],
        [official, "accuracy", "200"],
        ["Visual grounding · rsvg [strict protocol]", "acc@0.5", "40"],
    ]
    assert next(line for line in table if strict in line).split(" | ")[4] == "50.0"


def test_published_scores_stand_with_their_rules(folder: Path) -> None:
    text = page_of(folder).text
    assert "Published scores" in text and "GeoZero (8B)" in text and "74.46" in text and "official protocol" in text
    inputs = collect(folder / "scores", 0)
    assert {r.benchmark for r in inputs.references} == {"rsvqa_hr", "rsvg"}
    assert "GeoZero (8B)" not in (folder / "page" / "scores.md").read_text()


def test_a_benchmarks_result_names_itself_and_is_compared_without_what_it_leaves_out(tmp_path: Path) -> None:
    for model, right in (("one", 0.5), ("two", 0.9)):
        rows = [*questions(right), {"id": "count", "raw_output": "3", "label": "4", "question_type": "count"}]
        (tmp_path / f"{model}.json").write_text(json.dumps(rows))
        out = tmp_path / "scores" / model / "answers.json"
        evaluate_benchmark("rsvqa_hr", "vqa", "strict", tmp_path / f"{model}.json", out, resamples=50)
    inputs = collect(tmp_path / "scores", 5)
    assert not inputs.faults and {s.source for s in inputs.scores} == {"rsvqa_hr"}
    assert {c.n for c in inputs.comparisons if c.question_type is None} == {200}
    assert len(inputs.gallery) == 5


def test_the_gallery_shows_the_first_and_the_last_model_with_images(tmp_path: Path) -> None:
    Image.new("RGB", (50, 30), (9, 99, 9)).save(tmp_path / "a.png")
    for model, raw in (("base", "forest"), ("sft", "?"), ("a2grpo", "I see water. <answer>river</answer>")):
        row = {"id": "s1", "raw_output": raw, "label": "river", "image_path": "../a.png", "question": "Which class?"}
        scored(tmp_path, f"{model}/aid", "scene_cls", [row, {"id": "s2", "raw_output": 1, "label": "river"}])
    first, second = sorted(collect(tmp_path / "scores", 10).gallery, key=lambda item: item.id)
    assert (first.question, first.answer, first.image_path) == ("Which class?", "river", tmp_path / "records/../a.png")
    assert second.image_path is None
    assert [(o.who, o.right, o.thought, o.flags) for o in first.answers] == [
        ("Base", False, "", []),
        ("SFT", False, "", []),
        ("A²GRPO", True, "I see water.", []),
    ]
    page_of(tmp_path)
    index = (tmp_path / "page" / "index.html").read_text().split('id="gallery-index">')[1].split("</script>")[0]
    row = next(row for row in json.loads(index) if row["id"] == "s1")
    assert row["out"] == {"0": [False, 0, []], "1": [False, 0, []], "2": [True, 1, []]} and row["image"] == 0


def test_one_model_alone_has_no_other_beside_it(tmp_path: Path) -> None:
    scored(tmp_path, "mine/aid", "scene_cls", [{"raw_output": "a", "label": "a"}, {"raw_output": "b", "label": "a"}])
    (first, second) = collect(tmp_path / "scores", 10).gallery
    assert len(first.answers) == len(second.answers) == 1
    text = page_of(tmp_path).text
    assert "There is only one model here, mine" in text and "before RL" not in text


def test_what_is_wrong_with_the_form_of_an_answer_is_said(tmp_path: Path) -> None:
    texts = ["<answer>[1, 2, 3, 4]", "[1, 2, 3, 4]", "<answer>here</answer>", "<answer></answer>"]
    rows = [{"id": str(i), "raw_output": text, "label": "[1, 2, 3, 4]"} for i, text in enumerate(texts)]
    rows[1]["finish_reason"] = "length"
    scored(tmp_path, "mine/rsvg", "grounding", [row | {"width": 9, "height": 9} for row in rows])
    found = {item.id: item.answers[0].flags for item in collect(tmp_path / "scores", 10).gallery}
    assert found == {"0": ["malformed"], "1": ["cut off"], "2": ["unparsable"], "3": ["malformed", "empty"]}


def test_names_come_from_the_place_of_the_file(tmp_path: Path) -> None:
    places = ("alone", "m/aid", "m/aid_official", "m/tagged/aid", "m/forced/aid.strict", "runs/x/aid", "tagged/aid")
    for place in places:
        scored(tmp_path, place, "scene_cls", [{"raw_output": "a", "label": "a"}])
    inputs = collect(tmp_path / "scores", 0)
    assert {(s.model, s.mode, s.source) for s in inputs.scores} == {
        ("alone", "", "scene_cls"),
        ("m", "", "aid"),
        ("m", "tagged", "aid"),
        ("m", "forced", "aid"),
        ("runs/x", "", "aid"),
        ("tagged", "", "aid"),
    }


def test_scores_whose_records_are_gone_or_changed_stand_alone(folder: Path) -> None:
    (folder / "records" / "sft-rsvg.json").unlink()
    (folder / "records" / "base-rsvg.json").write_text("[]")
    inputs = collect(folder / "scores", 0)
    assert [f.split("; ")[1] for f in inputs.faults["comparisons"]] == ["its scores stand alone"] * 2
    assert "has changed since it was scored" in inputs.faults["comparisons"][0]
    assert {s.model for s in inputs.scores if s.source == "rsvg"} == {"base", "sft", "a2grpo"}
    assert not [c for c in inputs.comparisons if c.source == "rsvg"]
    assert "This page is incomplete." in page_of(folder).text


def test_records_that_are_gone_cost_only_what_reasoning_gains(tmp_path: Path) -> None:
    rows = [{"raw_output": "I see. <answer>a road</answer>", "label": ["a road", "a street"]}] * 3
    for mode in ("tagged", "forced"):
        scored(tmp_path, f"m/{mode}/rsicd", "caption", rows, "official")
    for path in (tmp_path / "records").iterdir():
        path.unlink()
    (row,) = collect(tmp_path / "scores", 10).reasoning
    assert row.share_with_thought == 1.0 and row.help is None


def test_what_is_no_result_is_passed_over(tmp_path: Path) -> None:
    for name, text in (
        ("list.json", "[]"),
        ("broken.json", "{"),
        ("deep.json", "[" * 100_000),
        ("other.json", '{"task": "vqa", "protocol": "strict", "metrics": 3, "n": 1}'),
        ("odd.json", '{"task": ["vqa"], "protocol": {}, "metrics": {}, "n": 1}'),
    ):
        (tmp_path / name).write_text(text)
    assert [path.name for path, _ in find_results(tmp_path)] == ["other.json"]
    with pytest.raises(InputError, match=r"other.json is no whole result: metrics .* \(score the records again\)"):
        report(tmp_path, tmp_path / "page.html")
    (tmp_path / "other.json").unlink()
    with pytest.raises(InputError, match="no result of `geozero evaluate`"):
        report(tmp_path, tmp_path / "page.html")


def test_a_result_of_the_least_form_is_shown(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    least = {"task": "vqa", "protocol": "strict", "n": 3, "metrics": {"accuracy": 0.5, "n_empty_pred": 0}}
    (tmp_path / "m" / "rsvqa_lr.json").write_text(json.dumps(least))
    (tmp_path / "m" / "odd.json").write_text(
        json.dumps({**least, "groups": 3, "reasoning": [], "intervals": {"accuracy": 7}})
    )
    (tmp_path / "m" / "bad.json").write_text(json.dumps({**least, "confusion": 3, "self_consistency": {"k": "x"}}))
    text = Outline(report(tmp_path, tmp_path / "page.html")[0].read_text()).text
    assert "m/odd.json is no whole result" in text and "were left out" in text
    assert "rsvqa_lr" in text and "it does not say which records it was made from" in text


def test_html_in_predictions_labels_and_names_is_inert(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{HOSTILE}{i}",
            "raw_output": f"{HOSTILE} <answer>{HOSTILE}</answer>",
            "label": HOSTILE,
            "question": HOSTILE,
        }
        | {"question_type": HOSTILE, "image_path": HOSTILE, "sample": HOSTILE}
        for i in range(4)
    ]
    for model in ("<b>one", "two & <i>"):
        scored(tmp_path, f"{model}/aid", "scene_cls", rows)
        scored(tmp_path, f"{model}/lr", "vqa", rows)
    outline = page_of(tmp_path)
    assert {t for t, _ in outline.elements} & {"img", "b>one", "iframe", "object"} == set()
    types = [a.get("type") for t, a in outline.elements if t == "script"]
    assert types == ["application/json", None, "application/json"]
    assert "onerror" in outline.text
    for name in ("scores.md", "scores.tex"):
        assert "<script" not in (tmp_path / "page" / name).read_text()


def test_other_scripts_and_a_ten_megabyte_completion_reach_the_page(tmp_path: Path) -> None:
    rows = [
        {"id": "rtl", "raw_output": "<answer>\u202eمطار</answer>", "label": "مطار", "question": "ما هذا؟"},
        {"id": "half", "raw_output": "\ud800", "label": "机场"},
        {"id": "huge", "raw_output": "<answer>" * 500_000 + "word " * 1_200_000, "label": "word"},
    ]
    scored(tmp_path, "m/aid", "scene_cls", rows)
    outline = page_of(tmp_path)
    assert "مطار" in "".join(outline.texts["script"])
    assert (tmp_path / "page" / "index.html").stat().st_size < 1_000_000


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=any_rows, second=any_rows, task=st.sampled_from(["scene_cls", "vqa", "grounding", "caption"]))
def test_any_records_make_a_page(first: list[Any], second: list[Any], task: str, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    made = False
    for model, records in (("one", first), ("two", second)):
        for protocol in ("strict", "official"):
            try:
                scored(folder, f"{model}/x.{protocol}", task, records, protocol)
                made = True
            except InputError as error:
                assert protocol == "official" and "\n" not in str(error)
    assert made
    assert "All scores" in page_of(folder).text


@given(st.text(max_size=40))
def test_latex_text_is_one_line_of_balanced_braces(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    bare = escaped.replace("\\{", "").replace("\\}", "")
    assert bare.count("{") == bare.count("}")
    for special in "#%&_":
        assert escaped.count(special) == escaped.count("\\" + special)
