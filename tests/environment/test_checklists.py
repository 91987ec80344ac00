"""CONTRIBUTING's checklists name every file that an addition touches, and each data set has its rows in the docs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from geozero.curation.decontamination.name_maps import SETS
from geozero.sources import ADAPTERS, SOURCES
from geozero.sources.toy import SUITE
from geozero.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
ANY_OTHERS = re.compile(
    r"[A-Z]+\.md|docs/(experiments|decisions)\.md|(tests|benchmarks)/(?!fixtures).*"
)  # may name anything
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
    assert len(hits) > 2  # it is still there
    named = named_in(*titles)
    assert [
        hit for hit in hits if not ANY_OTHERS.fullmatch(hit) and not any(path.fullmatch(hit) for path in named)
    ] == []


def test_every_file_that_a_checklist_names_exists() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    titles = re.findall(r"^### (.+)", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    for title in titles:
        assert [p.pattern for p in named_in(title) if not any(map(p.fullmatch, tracked))] == [], title


def test_every_task_is_in_the_row_of_the_option() -> None:
    (row,) = re.findall(r"^\| `--task` .*", (ROOT / "docs" / "evaluation.md").read_text(), re.M)
    assert [name for name in TASKS if f"`{name}`" not in row] == [], "add it to docs/evaluation.md"


def test_every_set_with_a_name_map_is_in_the_table_of_maps() -> None:
    table = (ROOT / "docs" / "corpus.md").read_text().split("| sets | one name for |")[1].split("\n\n")[0]
    titles = {name: re.split("[ -]", source.title)[0] for name, source in SOURCES.items() if name in SETS}
    assert sorted(name for name, title in titles.items() if title not in table) == [], "add it to docs/corpus.md"


@pytest.mark.parametrize(
    ("folder", "registered"),
    [
        ("geozero/tasks", {type(task).__module__ for task in TASKS.values()}),
        ("geozero/sources", {f"geozero.sources.{place.partition(':')[0]}" for place in (ADAPTERS | SUITE).values()}),
    ],
)
def test_every_task_and_data_set_that_has_a_file_is_registered(folder: str, registered: set[str]) -> None:
    """A class with a `name` of its own, in a file that nobody lists, would never be found."""
    named = re.compile(r"^class \w+\(.*\):\n(?:.*\n)*?    name(: str)? = \"", re.M)
    files = [path for path in (ROOT / folder).rglob("*.py") if named.search(path.read_text())]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert len(modules) > 5 and modules - registered == set(), f"list it in {folder}/__init__.py"
