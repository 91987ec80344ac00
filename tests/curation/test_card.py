"""The data card: the strictest licence decides, every number stands in the manifest, no text becomes markup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from build_world import corpus, keyed, pair
from fixtures import make_sources
from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import store
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.curation.card.data_card import BOX_COLOUR, IMAGE_SIDE, drawn, facts, origins
from geozero.curation.card.inspect import inspect
from geozero.curation.card.licences import Terms, describe, strictest, terms
from geozero.curation.decontamination.merge import raw
from geozero.curation.ingest.ingest import ingest
from geozero.sources import SOURCES, get, with_options


@pytest.mark.parametrize(
    ("licence", "redistribute", "commercial"),
    [
        ("MIT", True, True),
        ("CC-BY-4.0", True, True),
        ("CC-BY-NC-4.0", True, False),
        ("CC BY-NC-ND 4.0", False, None),
        ("academic use only", None, False),
        ("texts CC-BY-4.0; images for academic use (recalled, unverified)", None, False),
        (SOURCES["neon"].licence, True, True),
        ("unknown", None, None),
        ("your own", None, None),
        ("limited", None, None),
    ],
)
def test_what_licences_allow(licence: str, redistribute: bool | None, commercial: bool | None) -> None:
    assert terms(licence) == Terms(redistribute, commercial)


def test_of_a_mixture_the_strictest_decides() -> None:
    free, unknown, academic = Terms(True, True), Terms(None, None), Terms(None, False)
    assert strictest([free, free]) == free and strictest([free, unknown]) == unknown
    assert strictest([free, academic, unknown]) == Terms(None, False) and strictest([]) == Terms(None, None)
    assert [describe(v) for v in (True, False, None)] == ["yes", "no", "not known: ask the authors"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AID and RSICD of the fixtures, an AID image that RSICD trains on being evaluated."""
    place = tmp_path_factory.mktemp("card")
    make_sources.write_all(place / "root")
    for name in ("aid", "rsvqa_lr", "dior_rsvg"):
        ingest(name, place / "root", place / name)
    leak = corpus(place / "leak", keyed(7, "rsicd/airport/airport_1"), keyed(8, "rsicd/pond/pond_1"))
    held = corpus(place / "held", keyed(9, "aid/Airport/airport_1", "test"))
    raw([place / "aid", place / "rsvqa_lr", place / "dior_rsvg", leak], [held], place / "raw")
    return place / "raw"


def test_the_card_of_a_mixture(mixed: Path) -> None:
    found = facts(Corpus(mixed))
    assert {row["source"]: row["commercial"] for row in found["licences"]} == {
        "aid": describe(None),
        "dior_rsvg": describe(None),
        "rsicd": describe(None),
        "rsvqa_lr": "yes",
    }
    assert sum(row["n"] for row in found["licences"]) == Corpus(mixed).manifest["n_samples"]
    assert found["mixture"] == {"redistribute": describe(None), "commercial": describe(None)}
    assert found["unsure"] == ["aid", "dior_rsvg", "rsicd"]
    assert {"rsicd", "aid"} <= {row["source"] for row in found["leaks"]}
    refused = {row["source"]: row["refused"] for row in found["inputs"]}
    assert refused["dior_rsvg"] == {"box_degenerate": 1, "box_outside_image": 1, "expression_missing": 1}
    assert found["matrix"]["sources"] == ["aid", "rsicd"] and found["matrix"]["alone"] == ["dior_rsvg", "rsvqa_lr"]


def test_readme_and_page_tell_it(mixed: Path, tmp_path: Path) -> None:
    inspect(mixed, 4, tmp_path / "page.html", tmp_path / "data")
    readme, page = (tmp_path / "data" / "README.md").read_text(), (tmp_path / "page.html").read_text()
    for text in ("not known: ask the authors", "CC-BY-4.0", "leak_key", "box_degenerate", "split is by object"):
        assert text in readme and text in page, text
    assert "| rsicd | aid | leak_key | 1 |" in readme
    images = sorted(p.name for p in (tmp_path / "data" / "card").glob("*.jpg"))
    assert images == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"] and readme.count("](card/") == 4
    tables = [block.splitlines() for block in readme.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 6
    for table in tables:  # the same number of cells in every row, else it is no table
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1, table
    inspect(mixed, 1, card=tmp_path / "data")  # again: replaced as a whole
    assert len(list((tmp_path / "data" / "card").glob("*.jpg"))) == 1


def test_a_box_is_drawn_where_it_is(tmp_path: Path) -> None:
    image = store(make_sources.encoded(Image.new("RGB", (40, 20), (0, 90, 0)), "PNG"))
    one = Sample(
        "1", "grounding", "s", "train", image.image_id, "s/1", "q", "a", box=(10, 5, 30, 15), width=40, height=20
    )
    with CorpusWriter(tmp_path / "c", {"command": "test"}) as writer:
        writer.add_image(image, "s/1")
        assert writer.add(one)
    shown = Image.open(io.BytesIO(drawn(Corpus(tmp_path / "c"), one)))
    assert shown.size == (IMAGE_SIDE, IMAGE_SIDE // 2)
    edge, inside, outside = (shown.getpixel(at) for at in ((81, 80), (160, 80), (40, 80)))
    assert isinstance(edge, tuple) and sum(abs(a - b) for a, b in zip(edge, BOX_COLOUR, strict=True)) < 120
    assert inside[0] < 60 and outside[0] < 60  # type: ignore[index]


def test_licences_that_a_user_states_are_told(tmp_path: Path) -> None:
    for n in range(4):
        make_sources.write(
            tmp_path / "root" / "tank" / f"{n}.png", make_sources.encoded(make_sources.make_image(n), "PNG")
        )
    own = with_options(get("class_folders"), ["name=mine", "licence=MIT", "ratio=1/0"])
    ingest(own, tmp_path / "root", tmp_path / "c")
    assert origins(Corpus(tmp_path / "c"))[0]["licence"] == "MIT"
    raw([tmp_path / "c"], [], tmp_path / "raw")
    assert facts(Corpus(tmp_path / "raw"))["mixture"] == {"redistribute": "yes", "commercial": "yes"}


def test_no_text_breaks_the_readme(tmp_path: Path) -> None:
    evil = "a | b\n\n# <script>x</script> [x](http://y) `z`"
    image, one = pair(1, "s/1")
    with CorpusWriter(tmp_path / "c", {"command": evil}) as writer:
        writer.add_image(image, "s/1")
        assert writer.add(Sample.from_row({**one.to_row(), "question": evil, "answer": evil, "source": evil}))
        writer.reject(evil, evil, BadRecord(evil, evil))
    inspect(tmp_path / "c", 1, card=tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert "<script" not in readme and "\n# a" not in readme and "\n# <" not in readme
    assert readme.count("\n# ") == 0 and readme.startswith("# c\n")


@pytest.mark.parametrize("mine", ["README.md", "card/mine.jpg", "card/0.jpg"])
def test_a_card_replaces_nothing_that_somebody_else_wrote(mine: str, mixed: Path, tmp_path: Path) -> None:
    """A README.md of the user's own directory was overwritten, and a directory `card` removed."""
    if mine == "card/0.jpg":
        inspect(mixed, 2, card=tmp_path / "data")
    file = tmp_path / "data" / mine
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(InputError, match="choose another"):
        inspect(mixed, 1, card=tmp_path / "data")
    assert file.read_text() == "mine"
