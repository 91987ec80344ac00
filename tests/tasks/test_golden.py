"""Every golden value of either protocol, record by record where the files give it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from paths import GOLDEN, NLTK_DATA

from geozero.common.errors import InputError
from geozero.metrics.records import parse_records
from geozero.metrics.scores import Scores
from geozero.tasks import get

TOLERANCE = 1e-9
NAMES = sorted(path.name.removesuffix("_records.json") for path in GOLDEN.glob("*_records.json"))
CASES = json.loads((GOLDEN / "edge_cases.json").read_text())["cases"]
# A record's own convention is information only: we never read it, so we have no scores by it.
NOT_OURS = {"by_convention"}
# Our accuracy is the golden files' accuracy after trimming the space that removed punctuation leaves.
RENAMED = {"accuracy_stripped": "accuracy"}


@pytest.fixture(autouse=True)
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(NLTK_DATA), *nltk.data.path])


def load(name: str, protocol: str) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    expected = json.loads((GOLDEN / f"{name}_expected_{protocol}.json").read_text())
    corrected = GOLDEN / f"{name}_corrected_{protocol}.json"
    if corrected.is_file():
        change = json.loads(corrected.read_text())
        expected["metrics"] |= change["metrics"]
        for convention, values in change["other_frames"].items():
            expected["other_frames"][convention] |= values
        for i, iou in change["iou"].items():
            assert iou > expected["per_record"][int(i)]["iou"], "a correction of the rule loses no box that was read"
            expected["per_record"][int(i)]["iou"] = iou
    return expected["task"], json.loads((GOLDEN / f"{name}_records.json").read_text()), expected


def same(ours: Any, golden: Any) -> bool:
    if golden is None or ours is None:
        return ours is golden
    return ours == golden or abs(ours - golden) <= TOLERANCE


def check_metrics(ours: dict[str, Any], golden: dict[str, Any], renamed: dict[str, str]) -> None:
    kept = {k: v for k, v in golden.items() if k not in NOT_OURS and k not in renamed.values()}
    for name, value in kept.items():
        assert same(ours[renamed.get(name, name)], value), (name, ours[renamed.get(name, name)], value)


def check_records(scores: Scores, rows: list[dict[str, Any]], names: dict[str, str]) -> None:
    for i, row in enumerate(rows):
        for golden, ours in names.items():
            if row.get(golden) is not None:
                assert same(scores.per_record[ours][i], row[golden]), (i, golden)


@pytest.mark.parametrize("name", NAMES)
def test_official_values(name: str) -> None:
    task, rows, expected = load(name, "official")
    scores = get(task).official(parse_records(rows))
    metrics = scores.metrics()
    check_metrics(metrics, expected["metrics"], {})
    assert set(metrics) == set(expected["metrics"]) - NOT_OURS
    columns = ("pred", "hit", "CIDEr", "ROUGE-1", "ROUGE-L", "METEOR", "iou", "level")
    check_records(scores, expected["per_record"], {k: k for k in columns if k in scores.per_record})


@pytest.mark.parametrize("name", NAMES)
def test_strict_values(name: str) -> None:
    task, rows, expected = load(name, "strict")
    scores = get(task).strict(parse_records(rows))
    renamed = RENAMED if "accuracy_stripped" in expected["metrics"] else {}
    check_metrics(scores.metrics(), expected["metrics"], renamed)
    columns = {"hit_stripped": "hit", "CIDEr-D": "CIDEr-D", "CIDEr": "CIDEr", "ROUGE-L": "ROUGE-L", "iou": "iou"}
    check_records(scores, expected["per_record"], {k: v for k, v in columns.items() if v in scores.per_record})
    for convention, values in expected.get("other_frames", {}).items():
        other = get(task).strict(parse_records(rows), convention)
        check_metrics(other.metrics(), values, {})


def test_meteor_without_synonyms_is_reported_where_wordnet_is_absent(no_wordnet: None) -> None:
    _, rows, expected = load("caption", "official")
    scores = get("caption").official(parse_records(rows))
    assert scores.metrics()["METEOR"] is None
    assert "WordNet" in scores.missing["METEOR"]
    golden = expected["diagnostics"]["METEOR_without_synonym_stage"]
    assert same(scores.diagnosis["METEOR_without_synonym_stage"], golden)


def test_meteor_can_be_left_out() -> None:
    _, rows, _ = load("caption", "official")
    assert get("caption").official(parse_records(rows[:20]), headline_only=True).metrics()["METEOR"] is None


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_edge_cases(case: dict[str, Any]) -> None:
    records = parse_records(case["records"])
    if "error" in case["expected"]:
        with pytest.raises(InputError) as caught:
            get(case["task"]).official(records)
        assert "record" in str(caught.value)
        return
    metrics = get(case["task"]).official(records).metrics()
    for name, value in case["expected"]["metrics"].items():
        assert same(metrics[name], value), name
