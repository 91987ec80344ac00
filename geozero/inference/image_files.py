"""The images that an evaluation JSON names: found, read and measured; never a crash, only a reason."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from geozero.common.errors import BadRecord
from geozero.corpus.images import ALLOWED_FORMATS, MAX_PIXELS

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow says of a broken header


@dataclass(frozen=True, slots=True)
class ReadImage:
    """Encoded bytes, or why there are none."""

    data: bytes = b""
    fault: str | None = None


class ImageFiles:
    """Images by their names in the JSON, looked for from the working directory, then from the JSON's (`base`)."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._sizes: dict[str, tuple[int, int]] = {}

    def find(self, name: str) -> Path | None:
        """Where an image is; None if there is no such file."""
        for path in (Path(name), self.base / name):
            try:
                if path.is_file():
                    return path
            except (OSError, ValueError):  # a name too long, or with a zero byte
                continue
        return None

    def read(self, name: str) -> ReadImage:
        """An image's bytes, its header checked; its pixels are left to the engine."""
        path = self.find(name)
        if path is None:
            return _bad("image_missing", name)
        try:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
                width, height = image.size
        except UNREADABLE as error:
            return _bad("image_unreadable", f"{name}: {str(error)[:200]}")
        if width * height > MAX_PIXELS:
            return _bad("image_too_large", f"{name}: {width}x{height}")
        self._sizes[name] = width, height
        return ReadImage(data)

    def size(self, name: str) -> tuple[int, int]:
        """Width and height in pixels, from the header; 0 where unknown."""
        if name not in self._sizes:
            path, size = self.find(name), (0, 0)
            try:
                if path is not None:
                    with Image.open(path, formats=ALLOWED_FORMATS) as image:
                        size = image.size
            except UNREADABLE:
                pass
            self._sizes[name] = size
        return self._sizes[name]


def _bad(reason: str, detail: str) -> ReadImage:
    return ReadImage(fault=str(BadRecord(reason, detail)))
