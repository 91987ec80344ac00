"""The questions that the page shows with their images: evenly drawn, with boxes in pixels."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from stand_in_engine import make_model, one_source, stand_in

from geozero.corpus.store import Corpus
from geozero.engines.base import Request
from geozero.evaluation import gallery_items
from geozero.evaluation.gallery_items import gallery, probe_rows
from geozero.evaluation.result_sets import ModelAnswers
from geozero.inference.corpus_job import CorpusJob, run

SOURCES = {
    "toy_aid": "scene_cls",
    "toy_aid_hard": "scene_cls",
    "toy_rsvqa_lr": "vqa",
    "toy_rsicd": "caption",
    "toy_dior_rsvg": "grounding",
    "neon": "vqa",
}


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
    items = list(gallery([before, after], corpora, "norm1000", 20))
    counts = Counter(item["source"] for item in items)
    assert sum(counts.values()) == 20
    assert counts["toy_aid"] == 2  # all it has
    assert sorted(counts.values())[1:] == [3, 3, 4, 4, 4]
    assert len(list(gallery([before, after], corpora, "norm1000", 99))) == 42
    assert [i["id"] for i in gallery([before, after], corpora, "norm1000", 20)] == [i["id"] for i in items]
    item = next(i for i in items if i["source"] == "toy_rsvqa_lr")
    image = Image.open(io.BytesIO(base64.b64decode(item["image_jpeg_base64"])))
    assert (image.format, image.size, item["split"]) == ("JPEG", (40, 20), "test")
    before_rl, after_rl = item["answers"]
    assert before_rl == {
        "model": "sft",
        "mode": "tagged",
        "thought": "",
        "answer": "no",
        "raw": "<answer>no</answer>",
        "reward": 0.0,
        "box": None,
        "flags": [],
    }
    assert (after_rl["model"], after_rl["thought"], after_rl["answer"]) == ("rl", "trees", "yes")
    hard = next(i for i in items if i["source"] == "toy_aid_hard")
    assert hard["split"] == "test_hard"


def test_the_gallery_shows_what_was_answered(
    tmp_path: Path, corpora: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answer(tmp_path, corpora, "sft", lambda r, i: "x", monkeypatch, limit=3)
    after = answer(tmp_path, corpora, "rl", lambda r, i: "x", monkeypatch, limit=2)
    items = list(gallery([before, after], corpora, "norm1000", 48))
    assert Counter(i["source"] for i in items) == dict.fromkeys(SOURCES, 2)  # a limit must not empty it


def test_boxes_in_the_gallery_are_pixels(tmp_path: Path, corpora: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [path for path in corpora if path.name == "toy_dior_rsvg"]
    before = answer(tmp_path, boxes, "sft", lambda r, i: "<answer>[0, 0]</answer>", monkeypatch)
    after = answer(tmp_path, boxes, "rl", lambda r, i: "<answer>[250, 250, 750, 750]</answer>", monkeypatch)
    item = next(gallery([before, after], boxes, "norm1000", 1))
    assert item["box"] == (10.0, 5.0, 30.0, 15.0)  # of an image of 40 by 20
    assert item["answer"] == "[250, 250, 750, 750]"  # its text stands beside the model's, so in the same units
    first, last = item["answers"]
    assert last["box"] == pytest.approx((10.0, 5.0, 30.0, 15.0))
    assert (last["reward"], first["box"], first["reward"]) == (pytest.approx(1.0), None, 0.0)
    assert (first["flags"], last["flags"]) == (["unparsable"], [])
    item = next(gallery([before, after], boxes, "pixels", 1))
    assert item["answers"][1]["box"] == (250.0, 250.0, 750.0, 750.0)


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
    assert len(list(gallery([answers], [other, tested], "norm1000", 4))) == 4
    assert len(Corpus(other)) == 6


def test_shares_are_even_and_never_more_than_there_is() -> None:
    assert gallery_items._shares([8, 8, 8], 7) == [3, 2, 2]
    assert gallery_items._shares([1, 0, 8], 5) == [1, 0, 4]
    assert gallery_items._shares([2, 2], 9) == [2, 2]
    assert gallery_items._shares([], 9) == []
