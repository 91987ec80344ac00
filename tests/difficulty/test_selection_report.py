"""The selection's page: self-contained, escaped, an example and its image from each band, moved thresholds."""

from __future__ import annotations

import base64
import html
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from difficulty_world import CLASSES, Opener, by_number, make_corpus, make_model, sample
from PIL import Image

from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.difficulty.selection.select import select
from geozero.engines.base import Request
from geozero.params import Select


def evil(request: Request, seed: int) -> str:
    text = by_number(request, seed)
    return text if text in CLASSES or text.startswith(("[", "Yes", "many")) else f"<script>alert({seed % 2})</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection with everything: the page, its corpus, its store."""
    root = tmp_path_factory.mktemp("page")
    corpus = make_corpus(root / "corpus", 36)
    sample(corpus, [make_model(root / "model")], root / "store", k=8, open_engine=Opener(evil))
    settings = Select(hard_size=20)
    select(corpus, root / "store", root / "easy", root / "hard", settings, html=root / "page.html")
    return root


def test_the_page_shows_every_band_with_images(made: Path) -> None:
    text = (made / "page.html").read_text()
    assert text.startswith("<!doctype html>")
    for heading in ("easy", "hard_learnable", "hard_unsolved", "suspect", "unused"):
        assert re.search(rf"<h3>{heading}\b", text) or heading == "suspect"
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(images) >= 4 * 4
    for image in images[:3]:
        assert Image.open(io.BytesIO(base64.b64decode(image))).size == (40, 40)
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing is fetched


def test_the_tables_say_whom_each_set_takes(made: Path) -> None:
    text = (made / "page.html").read_text()
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)]
    found = {r[0]: (int(r[8]), int(r[9])) for r in rows if len(r) == 10 and r[0] not in ("easy", "hard")}
    for place, name in enumerate(("easy", "hard")):
        taken = Counter(word for s in Corpus(made / name).samples() for word in (s.task, s.source))
        assert {word: both[place] for word, both in found.items() if both[place]} == taken


def test_boxes_are_shown_as_the_model_counts_them(made: Path) -> None:
    """The label lies at 10 to 30 of 40 pixels; the model says 0 to 1000."""
    text = (made / "page.html").read_text()
    assert "[10, 10, 30, 30] in pixels, [250, 250, 750, 750] as the model counts" in text
    places = re.findall(r'<span class="(label|right|wrong)" style="([^"]*)"', text)
    inside = "left: 25.00%; top: 25.00%; width: 50.00%; height: 50.00%"
    assert ("label", inside) in places and ("right", inside) in places
    assert ("wrong", "left: 0.00%; top: 0.00%; width: 10.00%; height: 10.00%") in places


def test_captions_are_right_above_their_median(made: Path) -> None:
    text = (made / "page.html").read_text()
    said = re.findall(r'"(yes|no)">.</span> \d × (many green|&lt;script)[^<]*<span class="tag">reward', text)
    assert set(said) == {("yes", "many green"), ("no", "&lt;script")}


def test_what_a_model_says_is_text_and_nothing_else(made: Path) -> None:
    text = (made / "page.html").read_text()
    assert "<script" not in text and html.escape("<script>alert(1)</script>") in text


def test_a_moved_threshold_moves_the_sets(made: Path) -> None:
    text = (made / "page.html").read_text()
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)]
    moves = {(r[0], float(r[1])): [int(v) for v in r[2:]] for r in rows if len(r) == 10 and r[0] in ("easy", "hard")}
    now = moves["easy", 0.75]
    assert now == moves["hard", 0.5] and now[1] == len(Corpus(made / "easy")) and now[5] == 20
    assert now[2:4] == now[6:8] == [0, 0]
    stricter = moves["easy", 0.875]
    assert stricter[1] < now[1] and stricter[3] == now[1] - stricter[1] and stricter[2] == 0
    assert moves["easy", 0.625][2] > 0
    assert moves["hard", 0.25][4] < now[4]
    assert 'class="current"' in text


def test_the_page_is_the_same_every_time(made: Path, tmp_path: Path) -> None:
    arguments = (made / "corpus", made / "store", tmp_path / "easy", tmp_path / "hard", Select(hard_size=20))
    select(*arguments, html=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (made / "page.html").read_bytes()


def test_a_page_that_cannot_be_written_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    arguments = (made / "corpus", made / "store", tmp_path / "easy", tmp_path / "hard", Select(hard_size=20))
    with pytest.raises(InputError, match="cannot write"):
        select(*arguments, html=tmp_path / "taken" / "page.html")
