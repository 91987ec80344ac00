"""`geozero predict`: one's own images, GeoTIFF through rasterio alone; a stand-in engine answers."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stand_in_engine import StandInEngine, stand_in
from typer.testing import CliRunner

from geozero.cli.app import app
from geozero.cli.predict import block, line
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.raster import Stretch, to_rgb
from geozero.inference import predict as module
from geozero.inference.predict import Prediction, predict, read_image


def answers(monkeypatch: pytest.MonkeyPatch, text: str) -> StandInEngine:
    return stand_in(monkeypatch, lambda request, i: text)


def make_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Path:
    Image.new(mode, size).save(path)
    return path


def test_an_answer_a_thought_and_a_box_in_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answers(monkeypatch, "a ship at sea <answer>[100, 500, 200, 1000]</answer>")
    (found,) = predict("models/mine", [make_image(tmp_path / "a.png")], "Where?", engine="vllm", max_tokens=9)
    assert (found.answer, found.thought) == ("[100, 500, 200, 1000]", "a ship at sea")
    assert found.box == (4.0, 10.0, 8.0, 20.0) and found.map_box is None
    (asked, params), opened = engine.asked[0], engine.opened[0]
    assert asked.messages[-1]["content"] == "<image>Where?" and asked.messages[0]["role"] == "system"
    assert asked.image == (tmp_path / "a.png").read_bytes()
    assert params.max_tokens == 9 and opened == {"name": "vllm", "model": "models/mine"} and engine.n_closed == 1
    assert line(found).split("\t")[1:] == ["[100, 500, 200, 1000]", "pixels [4, 10, 8, 20]", "a ship at sea"]
    assert "→ [100" in block(found) and "box in pixels [4, 10, 8, 20]" in block(found)


def test_direct_answers_have_no_thought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answers(monkeypatch, "two\nlines")
    (found,) = predict("m", [make_image(tmp_path / "a.jpg")], mode="direct")
    assert (found.answer, found.thought, found.box) == ("two\nlines", "", None)
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


# -- GeoTIFF -----------------------------------------------------------------------------------------------------


def deep_tiff(path: Path) -> Path:
    Image.fromarray(np.arange(800, dtype=np.uint16).reshape(20, 40) * 50).save(path)
    return path


@pytest.fixture
def no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)


def test_without_rasterio_an_8_bit_tiff_is_read_and_another_says_what_is_missing(
    no_rasterio: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "x")
    plain = read_image(make_image(tmp_path / "a.tif"))
    assert (plain.width, plain.height, plain.crs) == (40, 20, None)
    assert Image.open(io.BytesIO(plain.data)).format == "PNG"  # what every engine reads
    with pytest.raises(BadRecord, match=r"needs rasterio: pip install 'geozero\[geo\]'"):
        read_image(deep_tiff(tmp_path / "b.tif"))
    (found,) = predict("m", [tmp_path / "b.tif"])
    assert "rasterio" in line(found)


def fake_rasterio(monkeypatch: pytest.MonkeyPatch, bands: np.ndarray, crs: str | None = "EPSG:32630") -> None:
    class Source:
        count, height, width = bands.shape
        transform = (2.0, 0.0, 500000.0, 0.0, -2.0, 4_000_000.0, 0.0, 0.0, 1.0)

        def __init__(self) -> None:
            self.crs = crs

        def __enter__(self) -> Source:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self, wanted: list[int], masked: bool) -> np.ma.MaskedArray:
            assert masked
            return np.ma.masked_equal(bands[[i - 1 for i in wanted]], 0)

    fake = ModuleType("rasterio")
    fake.open = lambda path: Source()  # type: ignore[attr-defined]
    fake.errors = SimpleNamespace(RasterioError=RuntimeError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rasterio", fake)


def test_rasterio_reads_the_first_three_bands_and_where_they_lie(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bands = np.random.default_rng(0).integers(1, 10_000, (4, 20, 40)).astype(np.uint16)
    fake_rasterio(monkeypatch, bands)
    (tmp_path / "a.tif").touch()
    found = read_image(tmp_path / "a.tif")
    pixels = np.asarray(Image.open(io.BytesIO(found.data)))
    assert pixels.shape == (20, 40, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)
    answers(monkeypatch, "<answer>[0, 0, 500, 500]</answer>")
    (answer,) = predict("m", [tmp_path / "a.tif"])
    assert answer.map_box == (500000.0, 4_000_000.0 - 20, 500000.0 + 40, 4_000_000.0)
    assert "EPSG:32630 [500000.000000, 3999980.000000, 500040.000000, 4000000.000000]" in line(answer)


def test_one_band_becomes_grey_and_8_bits_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    band = np.arange(1, 201, dtype=np.uint8).reshape(1, 10, 20)
    fake_rasterio(monkeypatch, band, crs=None)
    (tmp_path / "a.tif").touch()
    found = read_image(tmp_path / "a.tif")
    pixels = np.asarray(Image.open(io.BytesIO(found.data)))
    assert (pixels[..., 0] == band[0]).all() and (pixels[..., 2] == band[0]).all()
    assert found.transform is None


def test_too_large_a_raster_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_rasterio(monkeypatch, np.ones((1, 4, 4), np.uint8))
    monkeypatch.setattr(module, "MAX_PIXELS", 15)
    (tmp_path / "a.tif").touch()
    with pytest.raises(BadRecord, match="cut it into tiles"):
        read_image(tmp_path / "a.tif")


def stretched(values: Any) -> list[int]:
    """One row of a grey band, as it is shown."""
    band = values[None, None, :]
    return to_rgb(band, Stretch().limits(band))[0, :, 0].tolist()


def test_the_stretch_of_a_band() -> None:
    shown = stretched(np.ma.masked_equal(np.linspace(0, 1000, 101), 0))
    assert shown[0] == 0 and shown[-1] == 255 and abs(shown[50] - 127) <= 3
    assert stretched(np.ma.masked_all(4)) == [0] * 4
    assert stretched(np.full(4, 7.0)) == [0] * 4
    assert stretched(np.array([np.nan, 1.0, 2.0]))[0] == 0
