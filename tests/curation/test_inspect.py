"""Inspect: the counts as they are, the same look every time, and a page that no text can break."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fixtures import make_sources
from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import store
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.curation.card.inspect import inspect, spread
from geozero.curation.ingest.ingest import ingest

EVIL = "<script>alert('x')</script>\"&"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inspect")
    make_sources.write_all(place / "root")
    ingest("dior_rsvg", place / "root", place / "dior_rsvg")
    return place / "dior_rsvg"


def samples(n: int, source: str = "s") -> list[Sample]:
    return [Sample(f"{source}{i}", "vqa", source, "train", "i", "s/k", "q", "a", width=1, height=1) for i in range(n)]


def test_plain_lines(corpus: Path) -> None:
    lines = inspect(corpus, 2).splitlines()
    assert lines[:8] == [
        f"{corpus}: 5 samples, 3 images, 3 rejects",
        "dior_rsvg\tgrounding\ttest\t1",
        "dior_rsvg\tgrounding\ttrain\t3",
        "dior_rsvg\tgrounding\tval\t1",
        "rejected\tdior_rsvg\tbox_degenerate\t1",
        "rejected\tdior_rsvg\tbox_outside_image\t1",
        "rejected\tdior_rsvg\texpression_missing\t1",
        "fixed or odd, kept\tbox_clamped\t1",
    ]
    assert [line.split("\t")[0] for line in lines[8:]] == ["sample", "sample"]
    assert inspect(corpus, 2).splitlines() == lines and len(inspect(corpus, 0).splitlines()) == 8


def test_the_look_is_spread_over_groups_and_does_not_depend_on_order() -> None:
    every = samples(50, "a") + samples(3, "b") + samples(50, "c")
    chosen = spread(iter(every), 12)
    assert Counter(s.source for s in chosen) == {"a": 5, "b": 3, "c": 4}
    assert spread(reversed(every), 12) == chosen
    assert spread(every, 200) and len(spread(every, 200)) == 103
    assert spread(every, 0) == [] and spread([], 5) == []


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_its_images_and_boxes(corpus: Path, tmp_path: Path) -> None:
    inspect(corpus, 5, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text()
    page = Page(text)
    assert page.tags["img"] == 5 and "http" not in text and "A large airplane" in page.text
    images = [v for k, v in page.attributes if k == "src" and v]
    for uri in images:
        assert Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))).size == (48, 40)
    styles = [v for k, v in page.attributes if k == "style"]
    assert "left:8.33%;top:12.50%;width:33.33%;height:32.50%" in styles  # 4, 5, 20, 18 in 48×40
    assert len(styles) == 5 and "box_outside_image" in page.text


def test_no_text_of_a_corpus_becomes_markup(tmp_path: Path) -> None:
    image = store(make_sources.encoded(make_sources.make_image(1)))
    evil = Sample("1", "vqa", EVIL, "train", image.image_id, EVIL, EVIL, EVIL, question_type=EVIL, width=48, height=40)
    with CorpusWriter(tmp_path / "c", {"command": EVIL}) as writer:
        writer.add_image(image, EVIL)
        assert writer.add(evil)
        writer.reject(EVIL, EVIL, BadRecord(EVIL, EVIL))
    inspect(tmp_path / "c", 3, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert Page(text).tags["script"] == 0 and Page(text).text.count(EVIL) >= 8
    assert not re.search(r"<script", text)


def test_bad_input_is_one_line(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such corpus"):
        inspect(tmp_path / "nowhere")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(InputError, match="a directory stands"):
        inspect(corpus, 1, tmp_path / "page.html")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert Corpus(corpus).manifest["n_samples"] == 5
