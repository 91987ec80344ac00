"""Questions about one's own images: ordinary ones as they are, deep and multi-band GeoTIFF through rasterio."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from geozero.common.errors import BadRecord
from geozero.corpus.images import MAX_PIXELS, decode, size_of
from geozero.corpus.raster import TIFF, Stretch, choose_bands, to_rgb
from geozero.corpus.sample import Box
from geozero.engines import SamplingParams
from geozero.inference.answer_log import failure
from geozero.inference.loop import LazyEngine, Question, answer_many
from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.boxes import Convention, from_model, parse_box
from geozero.tasks.text import Mode, extract_answer, thought

QUESTION = "Describe this image."
BATCH = 16  # images answered, and shown, together
NEEDS_RASTERIO = "a GeoTIFF that is not 8-bit RGB needs rasterio: pip install 'geozero[geo]'"


@dataclass(frozen=True, slots=True)
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
        thought: the text before them; empty in direct mode.
        box: of the answer, in pixels of the image file; None if the answer holds none.
        map_box: the same in the image's own coordinate system (`crs`), if it has one.
        error: why there is no answer.
    """

    image: Path
    answer: str = ""
    thought: str = ""
    box: Box | None = None
    map_box: Box | None = None
    crs: str | None = None
    error: str | None = None


def predict(
    model: Path | str,
    images: Sequence[Path],
    question: str = QUESTION,
    *,
    engine: str = "auto",
    mode: Mode = "tagged",
    boxes: Convention = "norm1000",
    max_tokens: int = 1024,
) -> Iterator[Prediction]:
    """Greedy answers, in the images' order; an image that cannot be read costs only itself.

    Args:
        mode: tagged: with the system prompt, so that the model thinks first; direct: the answer alone.
        boxes: what the coordinates that the model writes mean.

    Raises:
        InputError: no such model or engine.
    """
    messages = [{"role": "user", "content": f"<image>{question}"}]
    if mode == "tagged":
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, *messages]
    read: dict[str, InputImage] = {}

    def load(asked: Question) -> bytes:
        image = read_image(Path(asked.image))
        read[asked.image] = replace(image, data=b"")
        return image.data

    with LazyEngine(model, SamplingParams(max_tokens=max_tokens), name=engine) as answering:
        for start in range(0, len(images), BATCH):
            paths = images[start : start + BATCH]
            questions = [Question(str(path), messages, str(path)) for path in paths]
            answers = answer_many(answering, questions, load, on_line=lambda line: None)
            for path, completions in zip(paths, answers, strict=True):
                reason = failure(completions)
                if reason is None:
                    yield _prediction(path, read[str(path)], completions[0].text, mode, boxes)
                else:
                    yield Prediction(path, error=reason)


def read_image(path: Path) -> InputImage:
    """An image as an engine reads it.

    Raises:
        BadRecord: it is none, too large, or a GeoTIFF that needs rasterio.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRecord("image_missing", error.strerror or str(error)) from None
    if path.suffix.lower() not in TIFF:
        return InputImage(data, *size_of(data))
    try:
        return _through_rasterio(path)
    except ModuleNotFoundError:
        pass
    try:
        image = decode(data)
    except BadRecord as bad:
        raise bad if bad.reason == "image_too_large" else BadRecord(bad.reason, NEEDS_RASTERIO) from None
    return InputImage(_png(image), image.width, image.height)


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


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _prediction(path: Path, image: InputImage, text: str, mode: Mode, boxes: Convention) -> Prediction:
    answer = extract_answer(text)
    reasoning = thought(text) if mode == "tagged" and answer != text.strip() else ""
    found = parse_box(answer)
    if found is None:
        return Prediction(path, answer, reasoning)
    box = from_model(found, image.width, image.height, boxes)
    return Prediction(path, answer, reasoning, box, _on_map(box, image), image.crs)


def _on_map(box: Box, image: InputImage) -> Box | None:
    if image.transform is None:
        return None
    a, b, c, d, e, f = image.transform
    x1, y1, x2, y2 = box
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in (x1, x2) for y in (y1, y2)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
