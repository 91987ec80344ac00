"""Records however broken: reading them never fails, and scoring ends in numbers or in one InputError."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image
from record_rows import rows

from geozero.common.errors import InputError
from geozero.evaluation.evaluate import evaluate
from geozero.metrics.records import image_sizes, parse_records, read_records

TASKS = ("scene_cls", "vqa", "grounding", "caption")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("protocol", ["strict", "official"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(records=rows)
def test_nothing_crashes(task: str, protocol: str, records: list[Any]) -> None:
    try:
        result = evaluate(task, protocol, records, resamples=5)
    except InputError as error:
        assert protocol == "official" and "\n" not in str(error)
        return
    assert result["n"] == len(records)
    json.dumps(result, allow_nan=False)


def test_every_bad_record_is_wrong_and_listed() -> None:
    bad: list[Any] = [{"label": "yes"}, {"raw_output": None, "label": "yes"}, {"raw_output": math.nan, "label": "yes"}]
    bad += [{"raw_output": {"a": 1}, "label": "yes"}, "yes", None, {"raw_output": "yes"}]
    result = evaluate("vqa", "strict", [{"raw_output": "yes", "label": "yes"}, *bad])
    assert result["n"] == 8 and result["metrics"]["accuracy"] == 1 / 8
    assert result["problems"]["reasons"] == {"label_missing": 3, "not_an_object": 2, "prediction_missing": 4}
    assert {p["record"] for p in result["problems"]["first"]} == set(range(1, 8))


def test_a_missing_prediction_does_not_pass_the_published_substring_rule() -> None:
    records = [{"raw_output": "", "label": "yes"}, {"label": "yes"}]
    assert evaluate("vqa", "official", records)["metrics"]["accuracy_percent"] == 50.0


def test_an_integer_that_python_does_not_write_is_no_text() -> None:
    result = evaluate("vqa", "strict", [{"raw_output": 10**5000, "label": "1", "id": 10**5000, "width": 10**5000}])
    assert result["problems"]["reasons"] == {"prediction_missing": 1}


def test_an_integer_that_python_does_not_read_costs_its_record_alone(tmp_path: Path) -> None:
    path, digits = tmp_path / "records.json", "1" * 5_000
    bad = f'{{"raw_output": {digits}, "label": "1"}}, {{"raw_output": "1", "label": -{digits}, "width": {digits}}}'
    path.write_text(f'[{{"raw_output": "1", "label": 1}}, {bad}]')
    result = evaluate("vqa", "strict", path)
    assert result["metrics"]["accuracy"] == 1 / 3
    assert result["problems"]["reasons"] == {"label_missing": 1, "prediction_missing": 1}


def test_numbers_and_number_lists_are_read_as_text() -> None:
    assert evaluate("vqa", "strict", [{"raw_output": 3, "label": "3"}])["metrics"]["accuracy"] == 1.0
    record = {"raw_output": [100, 100, 500, 500], "label": [10, 10, 50, 50], "width": "100", "height": 100.0}
    assert evaluate("grounding", "strict", [record])["metrics"]["acc@0.5"] == 1.0


def test_a_prediction_without_its_completion_is_scored() -> None:
    result = evaluate("vqa", "strict", [{"pred": "yes", "label": "yes"}, {"raw_output": "yes", "label": "yes"}])
    assert result["metrics"]["accuracy"] == 1.0
    assert result["well_formed_share"] == 0.0


def test_duplicate_ids_are_listed_and_scored() -> None:
    result = evaluate("vqa", "strict", [{"id": "a", "raw_output": "yes", "label": "yes"}] * 3)
    assert result["n"] == 3 and result["problems"]["reasons"] == {"duplicate_id": 2}


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_a_ten_megabyte_completion(protocol: str) -> None:
    huge = "<answer>" * 600_000 + " word" * 1_000_000
    records = [{"raw_output": huge, "label": "word"}, {"raw_output": "yes", "label": "yes"}]
    assert evaluate("vqa", protocol, records)["n"] == 2


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"{}", "dict instead of a list"),
        (b"3", "int instead of a list"),
        (b"[" * 100_000, "too deeply"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=what):
        read_records(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        read_records(tmp_path / "absent.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path)


def test_a_byte_order_mark_and_other_scripts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text("\ufeff" + json.dumps([{"raw_output": "机场", "label": "机场。"}], ensure_ascii=False), "utf-8")
    assert evaluate("scene_cls", "strict", path)["metrics"]["accuracy"] == 1.0


def test_sizes_come_from_the_image_file(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    names = ["a.png", str(tmp_path / "a.png"), "b.png", "absent.png", "", "\x00", "x" * 5000]
    width, height = image_sizes(parse_records([{"image_path": name} for name in names], tmp_path))
    assert width.tolist() == [40, 40, 0, 0, 0, 0, 0] and height.tolist() == [20, 20, 0, 0, 0, 0, 0]


def test_an_unknown_size_is_wrong_under_strict_and_an_error_under_official() -> None:
    record = {"raw_output": "[100, 100, 500, 500]", "label": "[10, 10, 50, 50]", "id": "q7"}
    result = evaluate("grounding", "strict", [record])
    assert result["metrics"]["acc@0.5"] == 0.0
    assert result["problems"]["reasons"] == {"image_size_missing": 1}
    assert evaluate("grounding", "strict", [record], boxes="pixels")["problems"]["n"] == 0
    with pytest.raises(InputError, match="q7"):
        evaluate("grounding", "official", [record])


def test_a_label_the_published_rules_stop_on_names_its_record() -> None:
    records = [{"raw_output": "a", "label": "a"}, {"raw_output": "a", "label": {"x": 1}, "id": "odd"}]
    for task in TASKS:
        with pytest.raises(InputError, match="record"):
            evaluate(task, "official", records if task != "caption" else records[1:])
