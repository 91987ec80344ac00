"""Questions about one's own images: any engine, ordinary images as they are, deep and multi-band GeoTIFF through
rasterio (the extra `geo`)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import MAX_PIXELS, decode
from geozero.corpus.raster import TIFF, Stretch, choose_bands, to_rgb
from geozero.engines.base import Engine, Request, SamplingParams
from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.boxes import Convention, format_box, from_model, parse_box
from geozero.tasks.text import Mode, extract_answer, thought

QUESTION = "Describe this image."
CHUNK = 16  # images asked about at a time

NEEDS_RASTERIO = "a GeoTIFF that is not 8-bit RGB needs rasterio: pip install 'geozero[geo]'"


@dataclass(frozen=True)
class InputImage:
    """PNG or JPEG bytes that an engine reads, their size in pixels, and for GeoTIFF its coordinate system."""

    data: bytes
    width: int
    height: int
    crs: str | None = None
    transform: tuple[float, ...] | None = None  # a, b, c, d, e, f of rasterio's affine: column, row → map


@dataclass(frozen=True)
class Prediction:
    """An answer about one image.

    Attributes:
        answer: what is between the tags, else the whole text.
        thought: what stands before them; empty in direct mode.
        box: of the answer, in pixels of the image as it lies on disk; None where the answer holds none.
        map_box: the same in the image's own coordinate system (`crs`), where it has one.
        error: why there is no answer.
    """

    image: Path
    answer: str = ""
    thought: str = ""
    box: tuple[float, float, float, float] | None = None
    map_box: tuple[float, float, float, float] | None = None
    crs: str | None = None
    error: str | None = None


def predict(
    engine: Engine,
    images: Sequence[Path],
    question: str = QUESTION,
    mode: Mode = "tagged",
    boxes: Convention = "norm1000",
    max_tokens: int = 1024,
) -> Iterator[Prediction]:
    """Greedy answers, in the images' order; an image that cannot be read costs only itself.

    Args:
        mode: tagged: with the system prompt, so that the model thinks first; direct: the answer alone.
        boxes: what coordinates mean that the model writes.
    """
    turns = [{"role": "user", "content": f"<image>{question}"}]
    if mode == "tagged":
        turns = [{"role": "system", "content": SYSTEM_PROMPT}, *turns]
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        inputs = [_read(path) for path in chunk]
        asked = [i for i, given in enumerate(inputs) if isinstance(given, InputImage)]
        requests = [Request(f"{start + i}", turns, inputs[i].data) for i in asked]  # type: ignore[union-attr]
        params = SamplingParams(max_tokens=max_tokens)
        answers = dict(zip(asked, engine.generate(requests, params), strict=True)) if requests else {}
        for i, (path, given) in enumerate(zip(chunk, inputs, strict=True)):
            if isinstance(given, str):
                yield Prediction(path, error=given)
            elif answers[i][0].finish_reason == "error":
                yield Prediction(path, error=answers[i][0].error)
            else:
                yield _prediction(path, given, answers[i][0].text, mode, boxes)


def read_image(path: Path) -> InputImage:
    """An image as an engine reads it.

    Raises:
        BadRecord: it is none, too large, or a GeoTIFF without rasterio.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRecord("image_missing", error.strerror or str(error)) from None
    if path.suffix.lower() not in TIFF:
        image = decode(data)
        return InputImage(data, image.width, image.height)
    try:
        return _through_rasterio(path)
    except ModuleNotFoundError:
        pass
    try:
        image = decode(data)
    except BadRecord as bad:
        if bad.reason == "image_too_large":
            raise
        raise BadRecord(bad.reason, NEEDS_RASTERIO) from None
    return InputImage(_png(image), image.width, image.height)


def _read(path: Path) -> InputImage | str:
    try:
        return read_image(path)
    except BadRecord as bad:
        return str(bad)


def _through_rasterio(path: Path) -> InputImage:
    """The first three bands (a single one three times), each stretched to 8 bits unless they are.

    Raises:
        ModuleNotFoundError: rasterio is not installed.
        BadRecord: not readable, or too large.
    """
    import numpy as np
    import rasterio

    try:
        with rasterio.open(path) as source:
            if source.width * source.height > MAX_PIXELS:
                raise BadRecord("image_too_large", f"{source.width}x{source.height}: cut it into tiles first")
            bands = source.read(list(choose_bands(source.count)), masked=True)
            crs = None if source.crs is None else str(source.crs)
            transform = tuple(source.transform)[:6] if crs else None
    except rasterio.errors.RasterioError as error:
        raise BadRecord("image_unreadable", " ".join(str(error).split())[:200]) from None
    stretch = Stretch(kind="none" if bands.dtype == np.uint8 else "percentile")
    image = Image.fromarray(to_rgb(bands, stretch.limits(bands)))
    return InputImage(_png(image), image.width, image.height, crs, transform)


def _prediction(path: Path, image: InputImage, text: str, mode: Mode, boxes: Convention) -> Prediction:
    answer = extract_answer(text)
    reasons = thought(text) if mode == "tagged" and answer != text.strip() else ""
    found = parse_box(answer)
    if found is None:
        return Prediction(path, answer, reasons)
    box = from_model(found, image.width, image.height, boxes)
    return Prediction(path, answer, reasons, box, _on_map(box, image), image.crs)


def _on_map(box: tuple[float, float, float, float], image: InputImage) -> tuple[float, float, float, float] | None:
    if image.transform is None:
        return None
    a, b, c, d, e, f = image.transform
    x1, y1, x2, y2 = box
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in (x1, x2) for y in (y1, y2)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def line(found: Prediction) -> str:
    """One plain line: image, answer, box in pixels (and on the map), thought; tabs between, none within."""
    parts = [str(found.image)]
    if found.error is not None:
        return "\t".join([*parts, "failed", " ".join(found.error.split())])
    parts.append(found.answer)
    if found.box is not None:
        parts.append(f"pixels {format_box(found.box)}")
    if found.map_box is not None:
        parts.append(f"{found.crs} [{', '.join(f'{v:.6f}' for v in found.map_box)}]")
    if found.thought:
        parts.append(found.thought)
    return "\t".join(" ".join(part.split()) for part in parts)


def block(found: Prediction) -> str:
    """Several lines for somebody who reads: the thought, then the answer."""
    if found.error is not None:
        return f"{found.image}: {found.error}"
    rows = [f"{found.image}", *([f"  {found.thought}"] if found.thought else []), f"  → {found.answer}"]
    if found.box is not None:
        rows.append(f"    box in pixels {format_box(found.box)}")
    if found.map_box is not None:
        rows.append(f"    box in {found.crs} [{', '.join(f'{v:.6f}' for v in found.map_box)}]")
    return "\n".join(rows)


def require_any(found: Sequence[Prediction]) -> None:
    """Raises InputError where not one image could be answered about."""
    if found and all(one.error is not None for one in found):
        raise InputError("no image could be answered about", str(found[0].image), str(found[0].error))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
