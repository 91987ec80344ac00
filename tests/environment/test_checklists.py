"""CONTRIBUTING's checklists name every file that an addition touches, and each data set has its rows in the docs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from geozero.curation.decontamination.name_maps import SETS
from geozero.sources import SOURCES

ROOT = Path(__file__).resolve().parents[2]
ANY_OTHERS = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/experiments.md",
    "docs/decisions.md",
    "tests/environment/test_checklists.py",
)
_PATH = re.compile(r"`([\w./*-]+)`")


def named_in(*titles: str) -> list[re.Pattern[str]]:
    """The paths that the checklists of these titles name; NAME and KIND stand for any word, a folder for all below it.

    A name without a folder lies in the folder that was named before it.
    """
    parts = (ROOT / "CONTRIBUTING.md").read_text().split("\n### ")[1:]
    sections = dict(part.split("\n## ")[0].split("\n", 1) for part in parts)
    found, folder = [], ""
    for name in (name for title in titles for name in _PATH.findall(sections[title])):
        path = name if "/" in name else folder + name
        if path.endswith("/") or Path(name).suffix in (".py", ".md", ".yaml", ".json"):
            folder = path[: path.rindex("/") + 1] if "/" in path else folder
            words = re.sub(r"NAME|KIND|\\\*", r"\\w[\\w-]*", re.escape(path))
            found.append(re.compile(words + (".*" if path.endswith("/") else "")))
    return found


@pytest.mark.parametrize(
    ("titles", "word"),
    [
        (("A data set", "A benchmark"), "siri_whu"),
        (("A data set", "A benchmark"), "whu_rs19"),
        (("A data set", "A benchmark"), "sydney_captions"),
        (("A task",), "multiple_choice"),
        (("A metric",), "AP_nc"),
        (("A metric",), "mean_f1"),
        (("A training parameter",), "kl_tokens"),
        (("A training parameter",), "gate_tau"),
    ],
)
def test_a_checklist_names_every_file_that_an_earlier_addition_is_in(titles: tuple[str, ...], word: str) -> None:
    hits = subprocess.run(["git", "grep", "-lwI", "-e", word], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert len(hits) > 2
    named = named_in(*titles)
    assert [hit for hit in hits if hit not in ANY_OTHERS and not any(path.fullmatch(hit) for path in named)] == []


def test_every_file_that_a_checklist_names_exists() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    titles = re.findall(r"^### (.+)", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    for title in titles:
        assert [p.pattern for p in named_in(title) if not any(map(p.fullmatch, tracked))] == [], title


def test_every_data_set_has_its_rows_in_the_documentation() -> None:
    sources, corpus = ((ROOT / "docs" / page).read_text() for page in ("sources.md", "corpus.md"))
    own = {name for name in SOURCES if not name.startswith("toy_")}
    assert sorted(name for name in own if f"`{name}`" not in sources) == [], "add a row to docs/sources.md"
    maps = corpus.split("| sets | one name for |")[1].split("\n\n")[0]
    titles = {name: re.split("[ -]", source.title)[0] for name, source in SOURCES.items() if name in SETS}
    assert sorted(name for name, title in titles.items() if title not in maps) == [], "docs/corpus.md, name maps"
