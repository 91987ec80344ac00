"""The record: ids, folds and splits that never move, the rules it has to keep, and its way to disk and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord
from geozero.corpus.sample import (
    FIELD_NAMES,
    SCHEMA,
    SPLITS,
    Sample,
    check_box,
    digest,
    fold_of,
    sample_id,
    samples_of,
    stable_choice,
    stable_unit,
)
from geozero.sources import Ratio
from geozero.tasks import TASKS, validate

CORRECT: dict[str, Any] = {
    "id": "1",
    "task": "vqa",
    "source": "s",
    "split": "train",
    "image_id": "i",
    "image_key": "s/a",
    "question": "Is a ship present?",
    "answer": "yes",
    "width": 100,
    "height": 80,
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
parts = st.lists(texts.filter(lambda text: "\x1f" not in text), min_size=2, max_size=5)
samples = st.builds(
    Sample,
    id=texts,
    task=st.sampled_from(list(TASKS)),
    source=texts,
    split=st.sampled_from(SPLITS),
    image_id=texts,
    image_key=texts,
    question=texts,
    answer=texts,
    references=st.lists(texts, max_size=3).map(tuple),
    box=st.none() | st.tuples(*[st.floats(allow_nan=False)] * 4),
    width=st.integers(0, 2**31 - 1),
    height=st.integers(0, 2**31 - 1),
    question_type=st.none() | texts,
    classes=st.lists(texts, max_size=3).map(tuple),
)


def make(**changes: Any) -> Sample:
    return Sample(**{**CORRECT, **changes})


# --- ids and hashes ---------------------------------------------------------------------------------------


def test_hashes_are_the_same_for_ever() -> None:
    """Corpora, folds, splits and answer stores of other machines and years go by these numbers."""
    assert digest(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert sample_id("aid", "Airport/airport_1", "scene_cls", "", "airport") == "6de12c4721cc5d9300d16a3a9fea0728"
    assert stable_unit("aid/Airport/airport_1") == 0.07739582434323367
    assert stable_unit("aid/Airport/airport_1", salt="split") == 0.337488719307085
    assert [fold_of(f"aid/Airport/airport_{n}", 2) for n in range(8)] == [1, 1, 0, 1, 0, 1, 1, 0]
    assert stable_choice("abc", "aid/Airport/airport_1", salt="template") == "a"


@given(parts, parts)
def test_an_id_says_which_fields_it_was_made_of(one: list[str], other: list[str]) -> None:
    assert (sample_id(*one) == sample_id(*other)) == (one == other)
    assert len(sample_id(*one)) == 32 and int(sample_id(*one), 16) >= 0


@given(st.text(st.characters()), texts)
def test_a_unit_lies_between_zero_and_one(key: str, salt: str) -> None:
    assert 0 <= stable_unit(key, salt) < 1


def test_units_are_spread_evenly_and_salts_are_independent() -> None:
    keys = [f"set/class/{n}" for n in range(10_000)]
    assert max(abs(n - 1_000) for n in Counter(int(stable_unit(k) * 10) for k in keys).values()) < 150
    pairs = Counter((int(stable_unit(k, "split") * 2), fold_of(k, 2)) for k in keys)
    assert len(pairs) == 4 and max(abs(n - 2_500) for n in pairs.values()) < 250  # a fold is a fair half of each split


@pytest.mark.parametrize("folds", [1, 2, 3, 10])
def test_folds_are_fair_and_complete(folds: int) -> None:
    counted = Counter(fold_of(f"set/class/{n}", folds) for n in range(10_000))
    assert sorted(counted) == list(range(folds))
    assert max(abs(n - 10_000 / folds) for n in counted.values()) < 350


def test_more_images_move_none() -> None:
    ratio = Ratio(train=0.8, val=0.1)
    before = {f"a/{n}": (ratio.split(f"a/{n}"), fold_of(f"a/{n}", 2)) for n in range(100)}
    after = {key: (ratio.split(key), fold_of(key, 2)) for key in (*(f"b/{n}" for n in range(100)), *before)}
    assert before.items() <= after.items()


def test_a_choice_reaches_every_option() -> None:
    assert {stable_choice(iter("abc"), str(n)) for n in range(50)} == set("abc")
    assert stable_choice(["only"], "x") == "only"


# --- rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "poetry"}, "unknown_task: poetry"),
        ({"split": "dev"}, "unknown_split: dev"),
        ({"question": " \n"}, "question_empty"),
        ({"answer": ""}, "answer_empty"),
        ({"task": "caption"}, "references_missing"),
        ({"task": "scene_cls", "classes": ("no", "maybe")}, "answer_not_in_classes: yes"),
        ({"width": 0}, "image_size_missing: 0x80"),
        ({"height": -1}, "image_size_missing: 100x-1"),
        ({"task": "grounding"}, "box_missing"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        validate(make(**changes))
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"task": "caption", "references": ("a ship",)},
        {"task": "scene_cls"},
        {"task": "scene_cls", "classes": ("yes",)},
        {"task": "grounding", "box": (0.0, 0.0, 100.0, 80.0)},
    ],
)
def test_a_correct_sample_is_returned(changes: dict[str, Any]) -> None:
    sample = make(**changes)
    assert validate(sample) is sample is sample.validate()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((1, 2, 3), "box_not_four_numbers"),
        ((math.nan, 0, 1, 1), "box_not_finite"),
        ((0, 0, math.inf, 1), "box_not_finite"),
        ((5, 0, 5, 1), "box_degenerate"),
        ((6, 0, 5, 1), "box_degenerate"),
        ((0, 9, 1, 9), "box_degenerate"),
        ((-0.1, 0, 1, 1), "box_outside_image"),
        ((0, -0.1, 1, 1), "box_outside_image"),
        ((0, 0, 10.1, 1), "box_outside_image"),
        ((0, 0, 1, 20.1), "box_outside_image"),
    ],
)
def test_a_box_lies_inside_its_image(box: Any, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        check_box(box, 10, 20)


# --- to disk and back -------------------------------------------------------------------------------------


def test_the_columns_are_the_fields() -> None:
    assert tuple(SCHEMA.names) == FIELD_NAMES == tuple(field.name for field in dataclasses.fields(Sample))


@given(samples)
def test_rows_json_and_arrow_give_the_sample_back(sample: Sample) -> None:
    assert Sample.from_row(sample.to_row()) == sample
    assert Sample.from_json(sample.to_json()) == sample
    table = pa.Table.from_pylist([sample.to_row()], schema=SCHEMA)
    assert [Sample.from_row(row) for row in table.to_pylist()] == [sample]


def test_columns_that_a_sample_does_not_have_are_passed_over() -> None:
    row = {**json.loads(make().to_json()), "rollout": 3}
    del row["references"], row["box"], row["question_type"], row["classes"]
    assert Sample.from_row(row) == make()


@pytest.mark.parametrize(
    "token", ["<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<|endoftext|>", "<|reserved_7|>"]
)
@pytest.mark.parametrize("field", ["question", "answer", "references"])
def test_a_text_with_a_special_token_is_no_sample(field: str, token: str) -> None:
    text = f"a ship {token}"
    with pytest.raises(BadRecord, match="special_token") as error:
        make(**{field: (text,) if field == "references" else text}).validate()
    assert error.value.detail == token


@pytest.mark.parametrize("text", ["a <b> c", "x<|y", "|x|>", "<| not one |>", "a<|>b", "<||>"])
def test_other_angle_brackets_are_text(text: str) -> None:
    assert make(question=text).validate().question == text


def test_a_batch_becomes_samples_as_its_rows_do() -> None:
    """Streaming converts columns at once; equal lists share a tuple, and null is as in a row."""
    box, classes = (1.0, 2.0, 3.0, 4.0), ("x", "y")
    one = Sample("1", "vqa", "s", "train", "i", "k", "Which?", "a", ("a", "b"), box, 5, 6, "q", classes)
    rows = [
        one.to_row(),
        one.to_row() | {"id": "2", "references": [], "box": None, "question_type": None},
        one.to_row() | {"id": "3", "references": None, "classes": None, "box": []},
    ]
    batch = pa.RecordBatch.from_pylist([rows[1], *rows], schema=SCHEMA)
    for part in (batch.slice(1), batch.slice(2, 1), batch.slice(0, 0)):  # a slice keeps its parent's offsets
        assert list(samples_of(part)) == [Sample.from_row(row) for row in part.to_pylist()]
    first, second, third = samples_of(batch.slice(1))
    assert first.classes is second.classes and third.classes == () and third.box == () and second.box is None
