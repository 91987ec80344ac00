"""Corpora of smaller copies: boxes, sizes and provenance of every task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_own_data, make_question_sets, make_sources
from fixtures.make_sources import encoded, make_image, write

from geozero import tasks
from geozero.common.errors import InputError
from geozero.corpus.images import Reduction, size_of
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus
from geozero.curation.card.data_card import card_text
from geozero.curation.ingest.checks import Checks, with_checks
from geozero.curation.ingest.ingest import ingest
from geozero.curation.release.exporting import export
from geozero.curation.release.importing import import_release
from geozero.sources import get, with_options

LIMIT = 21  # pixels of the longer side; all fixtures are larger
SOURCES: dict[str, tuple[Any, list[str]]] = {
    "aid": (make_sources.aid, []),
    "rsvqa_lr": (make_sources.rsvqa_lr, []),
    "rsicd": (make_sources.rsicd, []),
    "dior_rsvg": (make_sources.dior_rsvg, []),
    "vrsbench": (make_question_sets.vrsbench, []),
    "rsvg": (make_question_sets.rsvg, []),
    "coco": (make_own_data.coco, ["questions=presence,count,detection"]),
}


def by_what_is_asked(corpus: Corpus) -> dict[tuple[str, ...], list[Sample]]:
    """Samples by all that does not depend on the image's size; boxes are in the order of reading."""
    found: dict[tuple[str, ...], list[Sample]] = {}
    for sample in corpus.samples():
        found.setdefault((sample.image_key, sample.task, sample.split, sample.question_type or ""), []).append(sample)
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_boxes_and_sizes_follow_the_copy_and_nothing_else_changes(name: str, tmp_path: Path) -> None:
    make, options = SOURCES[name]
    make(tmp_path / "root")
    source = with_options(get(name), options)
    ingest(source, tmp_path / "root", tmp_path / "whole")
    manifest = ingest(source, tmp_path / "root", tmp_path / "small", checks=Checks(store_side=LIMIT))
    whole, small = Corpus(tmp_path / "whole"), Corpus(tmp_path / "small")
    assert manifest["n_samples"] == whole.manifest["n_samples"] and manifest["rejects"] == whole.manifest["rejects"]
    assert manifest["notes"]["pictures"]["reduced"] == manifest["notes"]["pictures"]["n"] > 0
    assert manifest["notes"]["mended"]["image_reduced"] == manifest["n_samples"]
    assert manifest["made_by"]["options"]["checks"]["store_side"] == LIMIT
    assert manifest["made_by"]["tree"] == whole.manifest["made_by"]["tree"]
    pairs = by_what_is_asked(whole), by_what_is_asked(small)
    assert pairs[0].keys() == pairs[1].keys()
    for key, before in pairs[0].items():
        for old, new in zip(before, pairs[1][key], strict=True):
            assert (new.width, new.height) == Reduction(LIMIT).size(old.width, old.height)
            assert size_of(small.image_bytes(new.image_id)) == (new.width, new.height)
            across, down = new.width / old.width, new.height / old.height
            task = tasks.get(old.task)
            boxes = [[x1 * across, y1 * down, x2 * across, y2 * down] for x1, y1, x2, y2 in task.true_boxes(old)]
            assert [pytest.approx(list(box), abs=0.006) for box in task.true_boxes(new)] == boxes
            assert new.references == old.references and new.classes == old.classes
            if not task.answers_are_boxes:
                assert new.answer == old.answer


def coco(root: Path, box: list[float], size: tuple[int, int] = (1000, 500)) -> None:
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0}],
    }
    write(root / "boxes.json", json.dumps(content))
    write(root / "1.jpg", encoded(make_image(1, (1000, 500))))


@pytest.mark.parametrize(
    ("box", "options", "expected"),
    [
        ([100, 50, 200, 100], [], (10, 5, 30, 15)),
        ([900, 400, 100.5, 100], [], (90, 40, 100, 50)),  # half a pixel outside the file's image: moved
    ],
)
def test_tolerances_are_pixels_of_the_file_s_image(
    tmp_path: Path, box: list[float], options: list[str], expected: tuple[float, ...]
) -> None:
    coco(tmp_path / "root", box)
    ingest(get("coco"), tmp_path / "root", tmp_path / "c", checks=with_checks(["store_side=100", *options]))
    (sample,) = Corpus(tmp_path / "c").samples()
    assert sample.box == pytest.approx(expected) and (sample.width, sample.height) == (100, 50)


def test_a_box_far_outside_stays_refused_however_small_the_copy(tmp_path: Path) -> None:
    coco(tmp_path / "root", [900, 400, 104, 100])
    with pytest.raises(InputError, match="box_outside_image"):
        ingest(get("coco"), tmp_path / "root", tmp_path / "c", checks=with_checks(["store_side=100"]))


def test_an_annotation_of_another_size_is_scaled_first_to_the_file_then_to_the_copy(tmp_path: Path) -> None:
    coco(tmp_path / "root", [200, 100, 400, 200], size=(2000, 1000))
    with pytest.raises(InputError, match="box_of_other_size"):
        ingest(get("coco"), tmp_path / "root", tmp_path / "c", checks=with_checks(["store_side=100"]))
    ingest(get("coco"), tmp_path / "root", tmp_path / "c", checks=with_checks(["store_side=100", "resized=scale"]))
    (sample,) = Corpus(tmp_path / "c").samples()
    assert sample.box == pytest.approx((10, 5, 30, 15))


def test_the_card_says_that_images_were_reduced(tmp_path: Path) -> None:
    coco(tmp_path / "root", [100, 50, 200, 100])
    ingest(get("coco"), tmp_path / "root", tmp_path / "c", checks=with_checks(["store_pixels=5000"]))
    assert "| coco | image_reduced | 1 |" in card_text(Corpus(tmp_path / "c"))


def test_a_release_is_read_into_smaller_copies_too(tmp_path: Path) -> None:
    coco(tmp_path / "root", [100, 50, 200, 100])
    ingest(get("coco"), tmp_path / "root", tmp_path / "c")
    export(tmp_path / "norm1000", {"raw": tmp_path / "c"}, [])
    export(tmp_path / "pixels", {"raw": tmp_path / "c"}, [], "pixels")
    for boxes in ("norm1000", "pixels"):
        import_release(tmp_path / boxes, tmp_path / f"back-{boxes}", boxes=boxes, checks=Checks(store_side=100))  # type: ignore[arg-type]
        (sample,) = Corpus(tmp_path / f"back-{boxes}").samples()
        assert sample.box == pytest.approx((10, 5, 30, 15)) and (sample.width, sample.height) == (100, 50)


def test_processes_reduce_as_this_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sources.aid(tmp_path / "root")
    for processes in (1, 2):
        monkeypatch.setattr("geozero.curation.ingest.decoding.cores", lambda n=processes: n)
        monkeypatch.setattr("geozero.curation.ingest.decoding.ALONE", 0)
        ingest(get("aid"), tmp_path / "root", tmp_path / str(processes), checks=Checks(store_side=LIMIT))
    assert Corpus(tmp_path / "1").digest == Corpus(tmp_path / "2").digest


def test_a_corpus_without_the_new_checks_stays_what_it_was(tmp_path: Path) -> None:
    make_sources.aid(tmp_path / "root")
    manifest = ingest(get("aid"), tmp_path / "root", tmp_path / "c")
    assert "store_side" not in manifest["made_by"]["options"]["checks"]


@pytest.mark.parametrize("option", ["store_side=-1", "max_pixels=999999999999", "store_pixels=1e6"])
def test_limits_out_of_range_are_one_line(option: str) -> None:
    with pytest.raises(InputError, match=r"out of range|no number"):
        with_checks([option])
