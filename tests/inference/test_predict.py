"""`geozero predict`: one's own images; a stand-in engine answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from stand_in_engine import StandInEngine, stand_in
from typer.testing import CliRunner

from geozero.cli.app import app
from geozero.cli.predict import block, line
from geozero.common.errors import InputError
from geozero.corpus.image_file import ImageFile
from geozero.inference import predict as module
from geozero.inference.predict import Prediction, predict


def answers(monkeypatch: pytest.MonkeyPatch, text: str) -> StandInEngine:
    return stand_in(monkeypatch, lambda request, i: text)


def make_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Path:
    Image.new(mode, size).save(path)
    return path


def test_an_answer_a_thought_and_a_box_in_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answers(monkeypatch, "a ship at sea <answer>[100, 500, 200, 1000]</answer>")
    (found,) = predict("models/mine", [make_image(tmp_path / "a.png")], "Where?", engine="vllm", max_tokens=9)
    assert (found.answer, found.thought) == ("[100, 500, 200, 1000]", "a ship at sea")
    assert found.boxes == ((4.0, 10.0, 8.0, 20.0),) and found.map_boxes == ()
    (asked, params), opened = engine.asked[0], engine.opened[0]
    assert asked.messages[-1]["content"] == "<image>Where?" and asked.messages[0]["role"] == "system"
    assert asked.image == (tmp_path / "a.png").read_bytes()
    assert params.max_tokens == 9 and opened == {"name": "vllm", "model": "models/mine"} and engine.n_closed == 1
    assert line(found).split("\t")[1:] == ["[100, 500, 200, 1000]", "pixels [4, 10, 8, 20]", "a ship at sea"]
    assert "→ [100" in block(found) and "box in pixels [4, 10, 8, 20]" in block(found)


def test_direct_answers_have_no_thought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answers(monkeypatch, "two\nlines")
    (found,) = predict("m", [make_image(tmp_path / "a.jpg")], mode="direct")
    assert (found.answer, found.thought, found.boxes) == ("two\nlines", "", ())
    assert len(engine.asked[0][0].messages) == 1
    assert line(found) == f"{tmp_path}/a.jpg\ttwo lines"


def test_a_bad_image_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "x")
    (tmp_path / "b.png").write_text("no image")
    paths = [make_image(tmp_path / "a.png"), tmp_path / "b.png", tmp_path / "gone.png"]
    found = list(predict("m", paths))
    assert [one.error is None for one in found] == [True, False, False]
    assert line(found[1]).split("\t")[1] == "failed" and "gone.png" in block(found[2])
    assert isinstance(found[1], Prediction)


def test_without_a_readable_image_no_engine_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answers(monkeypatch, "x")
    (tmp_path / "b.png").write_text("no image")
    (found,) = predict("m", [tmp_path / "b.png"])
    assert found.error and engine.opened == []


def test_answers_come_batch_by_batch_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, lambda request, i: request.id)
    paths = [make_image(tmp_path / f"{n}.png") for n in (*range(module.BATCH + 3), 0)]
    coming = predict("m", paths)
    first = [next(coming) for _ in range(module.BATCH)]
    assert len(engine.asked) == module.BATCH  # shown before the rest is answered
    assert [one.answer for one in [*first, *coming]] == [str(path) for path in paths]


def test_the_command_prints_lines_and_fails_only_without_any_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "a lake")
    (tmp_path / "b.png").write_text("no image")
    given = [str(make_image(tmp_path / "a.png")), str(tmp_path / "b.png")]
    done = CliRunner().invoke(app, ["predict", "--model", "m", *given])
    assert done.exit_code == 0 and done.stdout.splitlines()[0] == f"{given[0]}\ta lake"
    assert "failed" in done.stdout.splitlines()[1]
    done = CliRunner().invoke(app, ["predict", "--model", "m", given[1]])
    assert isinstance(done.exception, InputError) and "no image could be answered about" in str(done.exception)


def test_a_box_is_given_in_the_images_coordinate_system_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "<answer>[0, 0, 500, 500]</answer>")
    place = (2.0, 0.0, 500000.0, 0.0, -2.0, 4_000_000.0)
    monkeypatch.setattr(module, "read_image", lambda path, max_pixels: ImageFile(b"", 40, 20, "EPSG:32630", place))
    (answer,) = predict("m", [tmp_path / "a.tif"])
    assert answer.map_boxes == ((500000.0, 4_000_000.0 - 20, 500000.0 + 40, 4_000_000.0),)
    assert "EPSG:32630 [500000.000000, 3999980.000000, 500040.000000, 4000000.000000]" in line(answer)
    assert "box in EPSG:32630 [500000.000000" in block(answer)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[[0, 0, 500, 500], [100, 500, 200, 1000]]", ["[0, 0, 20, 10]", "[4, 10, 8, 20]"]),
        ('[{"bbox_2d": [0, 0, 500, 500], "label": "ship"}]', ["[0, 0, 20, 10]"]),
        ("[0, 0, 500, 500], [100, 500, 200, 1000], [0, 0", ["[0, 0, 20, 10]", "[4, 10, 8, 20]"]),  # broken off
        ("[]", []),
        ("two ships [1, 2]", []),
    ],
)
def test_every_box_of_a_list_is_shown(
    text: str, boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, f"<answer>{text}</answer>")
    (found,) = predict("m", [make_image(tmp_path / "a.png")], boxes="norm1000")
    assert line(found).split("\t")[2:] == [f"pixels {box}" for box in boxes]
    assert block(found).splitlines()[2:] == [f"    box in pixels {box}" for box in boxes]


def test_one_image_that_is_not_there_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, lambda request, i: "<answer>water</answer>")
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(200 * 10**9)
    names = ("gone.png", "a.png", "sparse.png")
    found = list(module.predict("m", [tmp_path / name for name in names], boxes="norm1000"))
    assert [one.answer for one in found] == ["", "water", ""]
    assert "image_missing" in str(found[0].error) and "image_too_large" in str(found[2].error)
