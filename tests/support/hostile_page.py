"""Inputs of the page made hostile, and an outline of the page's HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_report
import pytest

from geozero.evaluation.report.schema import FILES

OWN_IMAGE = re.compile(r'<img src="data:image/jpeg;base64,[A-Za-z0-9+/]+=*" alt="image of the question">')


HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!--"


class Outline(HTMLParser):
    """Elements with their attributes, the script and style texts, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "": []}
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.inside].append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts[""]).split())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_report.write(tmp_path_factory.mktemp("report") / "data", items=26)


def edited(data: Path, folder: Path, **parts: Any) -> Path:
    """A copy of the inputs with some parts replaced (None: left out; str: written as it is)."""
    folder.mkdir()
    for name in FILES.values():
        (folder / name).write_bytes((data / name).read_bytes())
    for part, value in parts.items():
        path = folder / FILES[part]
        if value is None:
            path.unlink()
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def hostile(value: Any) -> Any:
    """The same structure with the payload in every text and key (numbers, images and known names stay)."""
    keep = {"image_jpeg_base64", "metric", "task", "world", "split", "model", "mode"}
    if isinstance(value, dict):
        return {k: v if k in keep else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE + value if isinstance(value, str) else value


def hostile_inputs(data: Path, folder: Path) -> Path:
    parts = {part: hostile(json.loads((data / name).read_text())) for part, name in FILES.items()}
    parts["scores"] += [
        {**parts["scores"][0], k: HOSTILE} for k in ("model", "mode", "split", "world", "task", "metric")
    ]
    parts["lineage"] = {HOSTILE: {HOSTILE: [HOSTILE]}, **parts["lineage"]}
    parts["curves"][HOSTILE] = [{"step": 1, HOSTILE: 2.0}]
    parts["difficulty"][HOSTILE] = {"edges": [0, 1], "counts": [3], "bands": {HOSTILE: 3}}
    parts["probes"][0]["image_jpeg_base64"] = HOSTILE  # no image: this record is left out
    for item in parts["gallery"][:2]:
        item |= {"task": HOSTILE, "id": HOSTILE}
    return edited(data, folder, **parts)
