"""Benchmarks: the definitions hold what they must, find their samples in a corpus, and give papers' numbers as rows."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT
from PIL import Image

from geozero.cli import app
from geozero.common.errors import InputError
from geozero.corpus.images import store
from geozero.corpus.sample import Sample, sample_id
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.evaluation import benchmark as module
from geozero.evaluation.benchmark import (
    DEFINITIONS,
    benchmarks,
    evaluate_benchmark,
    get,
    prompt_digest,
    read_definitions,
    reference_rows,
    samples,
)
from geozero.sources import SOURCES
from geozero.tasks import TASKS

# what the project promises, by task
WANTED = {
    "scene_cls": {"ucm", "aid", "whu_rs19", "resisc45", "eurosat", "nasc_tg2", "siri_whu"},
    "vqa": {
        "rsvqa_lr",
        "rsvqa_hr",
        "rsvqa_hr_phili",
        "vrsbench_vqa",
        "neon_vqa",
        "toy_suite_vqa",
        "toy_suite_vqa_hard",
    },
    "grounding": {"rsvg", "dior_rsvg", "vrsbench_referring", "neon_grounding", "toy_suite_vg", "toy_suite_vg_hard"},
    "caption": {"ucm_captions", "sydney_captions", "nwpu_captions", "rsicd", "vrsbench_cap"},
    "multiple_choice": {"xlrs_bench", "xlrs_bench_lite", "mme_realworld_lite_rs"},
}
TOY = {"scene_cls": "toy_aid", "vqa": "toy_rsvqa_lr", "grounding": "toy_dior_rsvg", "caption": "toy_rsicd"}
CONTRACT = {  # the source names of the contract that benchmarks need
    *("resisc45", "eurosat", "aid", "nasc_tg2", "whu_rs19", "ucm", "siri_whu"),
    *("rsvqa_lr", "rsvqa_hr", "vrsbench", "rsvg", "dior_rsvg"),
    *("ucm_captions", "sydney_captions", "nwpu_captions", "rsicd", "neon"),
}


# --- the definitions --------------------------------------------------------------------------------------


def test_every_promised_benchmark_is_there() -> None:
    by_task = {task: {b.name for b in benchmarks().values() if b.task == task} for task in TASKS}
    assert {task: names for task, names in by_task.items() if names} == {
        task: WANTED[task] | ({TOY[task], f"{TOY[task]}_hard"} if task in TOY else set()) for task in WANTED
    }


@pytest.mark.parametrize("name", benchmarks())
def test_a_definition_fits_the_project(name: str) -> None:
    it = get(name)
    assert it.split == "test" and it.protocol == "strict"
    assert it.source in CONTRACT | SOURCES.keys() or (it.source is None and it.data)
    assert TASKS[it.task].headline in it.metrics
    assert it.prompt == prompt_digest(it.task), "the phrasings changed: raise `version` and take the new digest"
    if it.source in SOURCES:
        assert it.task in SOURCES[it.source].tasks
        assert all(hasattr(SOURCES[it.source], option) for option in it.options)


def test_published_numbers_come_as_rows_in_our_units_with_their_source() -> None:
    row = reference_rows("ucm")[0]
    assert (row.benchmark, row.version, row.metric, row.value, row.published) == ("ucm", 1, "accuracy", 0.9381, 93.81)
    assert (row.model, row.rules, row.source) == ("GeoZero (8B)", "official", "arXiv 2511.22645")
    rows = {(r.question_type, r.published) for r in reference_rows("rsvqa_hr") if r.rules == "official"}
    assert rows == {("presence", 74.46), ("comp", 83.59)}
    rows = {(r.question_type, r.published) for r in reference_rows("rsvqa_lr") if r.model == "GeoChat"}
    assert rows == {("presence", 91.09), ("comp", 90.33), ("rural_urban", 94.0), (None, 90.7)}
    assert {r.published for r in reference_rows("rsvg")} == {37.16, 26.41}
    assert [r.published for r in reference_rows(get("dior_rsvg"))] == [75.67]
    assert reference_rows("eurosat") == []
    geochat = {r.metric: r.value for r in reference_rows("vrsbench_cap") if r.model == "GeoChat fine-tuned"}
    assert geochat["BLEU-4"] == 0.138 and geochat["CIDEr-D"] == 0.282 and len(geochat) == 7


def test_vrsbench_has_the_tables_of_october_2024() -> None:
    """The authors replaced them; the mean over ten question types stayed in two rows."""
    boxes = {(r.model, r.question_type, r.metric): r.published for r in reference_rows("vrsbench_referring")}
    assert boxes["GeoChat fine-tuned", None, "acc@0.5"] == 49.8
    assert boxes["LLaVA-1.5 fine-tuned", None, "acc@0.5"] == 41.6
    assert boxes["Mini-Gemini fine-tuned", None, "acc@0.5"] == 30.1
    assert boxes["GeoChat fine-tuned", "unique", "acc@0.7"] == 22.6
    assert boxes["LLaVA-1.5 fine-tuned", "non-unique", "acc@0.5"] == 34.8
    answers = {(r.model, r.metric): r.published for r in reference_rows("vrsbench_vqa")}
    assert answers == {
        ("Mini-Gemini fine-tuned", "accuracy"): 77.8,
        ("LLaVA-1.5 fine-tuned", "accuracy"): 76.4,
        ("GeoChat fine-tuned", "accuracy"): 76.0,
        ("MiniGPT-v2 fine-tuned", "accuracy"): 38.2,
        ("GPT-4V", "accuracy_mean_of_types"): 65.6,
        ("GeoChat", "accuracy_mean_of_types"): 40.8,
    }


def test_no_published_number_without_a_source_that_can_be_looked_up() -> None:
    rows = [row for name in benchmarks() for row in reference_rows(name)]
    assert len(rows) > 100
    for row in rows:
        assert ("arXiv" in row.source or "github.com" in row.source) and row.model
        assert 0 <= row.value <= (2 if row.metric.startswith("CIDEr") else 1) and row.rules in ("official", "authors")
        assert row.edition and "2017-01" < row.date < "2027-01"
        assert row.metric in TASKS[get(row.benchmark).task].reported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ocr"}, "task"),
        ({"version": 0}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"metrics": ["BLEU-9"]}, "unknown metric BLEU-9 of scene_cls"),
        ({"references": [{"model": "m", "rules": "official", "scores": {"accuracy": 1}}]}, "references.0.source"),
        (
            {"references": [{"model": "m", "rules": "ours", "source": "s", "scores": {"accuracy": 1}}]},
            "references.0.rules",
        ),
        ({"references": [{"model": "m", "rules": "official", "source": "s", "scores": {}}]}, "references.0.scores"),
    ],
)
def test_a_definition_of_another_form_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    row = get("ucm").model_dump(mode="json") | change
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"benchmarks": [row]}))
    with pytest.raises(InputError, match=message):
        read_definitions(tmp_path / "b.yaml")


@pytest.mark.parametrize("text", ["", "benchmarks: 3", "benchmarks: {", "- a"])
def test_a_file_without_definitions_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(InputError, match="no benchmark definitions"):
        read_definitions(tmp_path / "b.yaml")


def test_a_name_stands_for_one_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text((DEFINITIONS / "scene.yaml").read_text())
    monkeypatch.setattr(module, "DEFINITIONS", tmp_path)
    with pytest.raises(InputError, match="two benchmarks named ucm"):
        benchmarks.__wrapped__()


def test_an_unknown_name() -> None:
    with pytest.raises(InputError, match=r"unknown benchmark 'ucmm' \(list, or one of "):
        get("ucmm")


# --- a corpus ---------------------------------------------------------------------------------------------


def corpus(path: Path, rows: list[dict[str, Any]], **options: Any) -> Corpus:
    """A corpus with one sample a row; all of one image."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "PNG")
    image = store(buffer.getvalue())
    with CorpusWriter(path, {"command": "ingest", "options": options}) as writer:
        writer.add_image(image, "a/b")
        for i, row in enumerate(rows):
            values = {"source": "rsvqa_hr", "task": "vqa", "split": "test", "answer": "yes", **row}
            sample = Sample(
                id=sample_id(values["source"], str(i)),
                image_id=image.image_id,
                image_key="a/b",
                question=f"Question {i}?",
                width=40,
                height=20,
                **values,
            )
            assert writer.add(sample)
    return Corpus(path)


def test_a_benchmark_is_its_source_task_split_and_question_types(tmp_path: Path) -> None:
    kinds = ("presence", "count", "comp", "area", "presence")
    rows: list[dict[str, Any]] = [{"question_type": kind} for kind in kinds]
    rows += [{"question_type": "presence", "split": "train"}, {"question_type": "presence", "source": "rsvqa_lr"}]
    rows.append({"task": "scene_cls", "source": "rsvqa_hr"})
    held = corpus(tmp_path / "c", rows, test="test")
    assert [s.question_type for s in samples("rsvqa_hr", held)] == ["presence", "comp", "presence"]
    assert [s.source for s in samples("rsvqa_lr", held)] == ["rsvqa_lr"]
    with pytest.raises(InputError, match="ingested with test=test_phili, this one says test in "):
        samples("rsvqa_hr_phili", held)


def test_what_a_corpus_lacks_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    held = corpus(tmp_path / "c", [{"question_type": "area"}, {"question_type": "area", "source": "aid"}], test="test")
    with pytest.raises(InputError, match=r"ucm needs ucm, the corpus holds aid, rsvqa_hr in .*c \(ingest ucm\)"):
        samples("ucm", held)
    with pytest.raises(InputError, match="aid needs scene_cls test of aid, the corpus holds vqa test"):
        samples(get("aid"), held)
    with pytest.raises(InputError, match="no question of type presence, comp"):
        list(samples("rsvqa_hr", held))
    mixed = corpus(tmp_path / "both", [{"question_type": "presence"}], test="both")
    with pytest.raises(InputError, match="this one says both"):
        samples("rsvqa_hr", mixed)
    merged = corpus(tmp_path / "raw", [{"question_type": "presence"}])
    with pytest.raises(InputError, match="this one says None"):
        samples("rsvqa_hr", merged)


# --- scores -----------------------------------------------------------------------------------------------


def write_records(path: Path, kinds: list[str | None]) -> Path:
    rows = [
        {"raw_output": "yes" if i % 2 else "no", "pred": "", "label": "yes", "image_path": f"{i}.png"}
        | ({"question_type": kind} if kind else {})
        for i, kind in enumerate(kinds)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_scores_of_a_benchmark_carry_its_version_and_the_published_rows(tmp_path: Path) -> None:
    records = write_records(tmp_path / "r.json", ["presence", "presence", "count", "comp", None, "area"])
    result = evaluate_benchmark("rsvqa_hr", "vqa", "strict", records, tmp_path / "deep" / "s.json")
    assert (result["n"], result["metrics"]["accuracy"]) == (4, 0.5)
    assert result["benchmark"]["n_left_out"] == 2 and result["benchmark"]["version"] == 1
    assert {74.46, 83.59} < {row["published"] for row in result["benchmark"]["references"]}
    assert any(note.startswith("2 records of other question types") for note in result["notes"])
    assert any("6 records, the official split has 222684" in note for note in result["notes"])
    assert result["records"]["path"] == str(records)
    assert json.loads((tmp_path / "deep" / "s.json").read_text())["benchmark"] == result["benchmark"]


def test_records_that_are_not_the_benchmark_s(tmp_path: Path) -> None:
    records = write_records(tmp_path / "r.json", ["count", "count"])
    with pytest.raises(InputError, match="rsvqa_hr is vqa, not caption in --task"):
        evaluate_benchmark("rsvqa_hr", "caption", "strict", records)
    with pytest.raises(InputError, match="no record of type presence, comp"):
        evaluate_benchmark("rsvqa_hr", "vqa", "strict", records)
    assert evaluate_benchmark("toy_rsvqa_lr", "vqa", "official", records)["n"] == 2
    with pytest.raises(InputError, match="no such records file"):
        evaluate_benchmark("rsvqa_hr", "vqa", "strict", tmp_path / "nowhere.json")


def geozero(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["geozero", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        app.main()
    return int(caught.value.code or 0)


def test_the_command_lists_and_scores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert geozero(monkeypatch, "evaluate", "--benchmark", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(benchmarks())
    assert next(line for line in lines if line.startswith("rsvqa_hr_phili")).split("\t")[1:5] == [
        "v1",
        "vqa",
        "rsvqa_hr test, test=test_phili",
        "presence, comp",
    ]
    records = write_records(tmp_path / "r.json", ["presence", "comp"])
    words = ["--task", "vqa", "--records", records, "--out", tmp_path / "s.json"]
    assert geozero(monkeypatch, "evaluate", *words, "--benchmark", "rsvqa_lr") == 0
    assert json.loads((tmp_path / "s.json").read_text())["benchmark"]["name"] == "rsvqa_lr"
    capsys.readouterr()
    assert geozero(monkeypatch, "evaluate", *words, "--benchmark", "rsvqa") == 2
    assert "unknown benchmark 'rsvqa'" in capsys.readouterr().err


def test_the_definitions_are_packed_with_the_code() -> None:
    root = ROOT
    assert '"**/*.yaml"' in (root / "pyproject.toml").read_text()
    assert {path.stem for path in DEFINITIONS.glob("*.yaml")} == {
        *("scene", "vqa", "grounding", "caption", "multiple_choice")
    }
