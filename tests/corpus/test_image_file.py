"""A user's image files: ordinary ones as they are, GeoTIFF through rasterio alone."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geozero.common.errors import BadRecord
from geozero.corpus import image_file
from geozero.corpus.image_file import ImageFile, read_image
from geozero.corpus.raster import Stretch, to_rgb


def make_image(path: Path) -> Path:
    Image.new("RGB", (40, 20)).save(path)
    return path


def test_an_ordinary_image_keeps_its_bytes(tmp_path: Path) -> None:
    path = make_image(tmp_path / "a.png")
    assert read_image(path) == ImageFile(path.read_bytes(), 40, 20)
    (tmp_path / "b.png").write_text("no image")
    for name, reason in (("b.png", "image_unreadable"), ("gone.png", "image_missing")):
        with pytest.raises(BadRecord, match=reason):
            read_image(tmp_path / name)


def deep_tiff(path: Path) -> Path:
    Image.fromarray(np.arange(800, dtype=np.uint16).reshape(20, 40) * 50).save(path)
    return path


@pytest.fixture
def no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)


def test_without_rasterio_an_8_bit_tiff_is_read_and_another_says_what_is_missing(
    no_rasterio: None, tmp_path: Path
) -> None:
    plain = read_image(make_image(tmp_path / "a.tif"))
    assert (plain.width, plain.height, plain.crs) == (40, 20, None)
    assert Image.open(io.BytesIO(plain.data)).format == "PNG"  # what every engine reads
    with pytest.raises(BadRecord, match=r"needs rasterio: pip install 'geozero\[geo\]'"):
        read_image(deep_tiff(tmp_path / "b.tif"))


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
    assert found.crs == "EPSG:32630"
    assert found.on_map((0.0, 0.0, 20.0, 10.0)) == (500000.0, 4_000_000.0 - 20, 500000.0 + 40, 4_000_000.0)


def test_one_band_becomes_grey_and_8_bits_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    band = np.arange(1, 201, dtype=np.uint8).reshape(1, 10, 20)
    fake_rasterio(monkeypatch, band, crs=None)
    (tmp_path / "a.tif").touch()
    found = read_image(tmp_path / "a.tif")
    pixels = np.asarray(Image.open(io.BytesIO(found.data)))
    assert (pixels[..., 0] == band[0]).all() and (pixels[..., 2] == band[0]).all()
    assert found.transform is None and found.on_map((0.0, 0.0, 1.0, 1.0)) is None


def test_too_large_a_raster_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_rasterio(monkeypatch, np.ones((1, 4, 4), np.uint8))
    monkeypatch.setattr(image_file, "MAX_PIXELS", 15)
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
