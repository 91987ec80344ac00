"""The documentation site's own code: docstrings as reStructuredText, the table of contents, links to the API pages."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from plain_docstrings import to_rest
from repository_pages import tables_of_contents, with_code_links, with_short_titles

INDEX = (ROOT / "docs" / "index.md").read_text()
NAMED = re.compile(r"`((?:geozero|flows|tests|benchmarks|docs|requirements|profiles)/[\w./-]*)`")
TO_BE_MADE = re.compile(r"NAME|KIND|^docs/_build$")  # by a contributor, by `make docs`


def test_single_backticks_become_code_and_nothing_else_is_markup() -> None:
    assert to_rest(["`a_b`s of **x** and n_ or | in `p | q`"]) == [
        r"``a_b``\ s of \*\*x\*\* and n\_ or \| in ``p | q``",
    ]


def test_an_indented_block_stays_as_it_is_written() -> None:
    lines = ["Layout:", "    {`a`: 1}", "      b*", "and more"]
    assert to_rest(lines) == ["Layout:", "", "::", "", "    {`a`: 1}", "      b*", "", "and more"]


def test_sections_are_left_to_napoleon() -> None:
    lines = ["Do it.", "", "Args:", "    x: `y`", "", "Raises:", "    ValueError: no."]
    assert to_rest(lines) == [line.replace("`y`", "``y``") for line in lines]


def test_a_docstring_may_be_one_section() -> None:
    assert to_rest(["Args:", "x: one", "    or two.", "y: `z`"]) == [
        "Args:",
        "    x: one",
        "        or two.",
        "    y: ``z``",
    ]


def test_a_label_after_a_sentence_begins_a_paragraph() -> None:
    assert to_rest(["Layout: a tree.", "Splits: none", "by the authors: ours."]) == [
        *("Layout: a tree.", "", "Splits: none", "by the authors: ours."),
    ]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("geozero/__init__.py", "geozero/tasks/__init__.py", "geozero/tasks/text.py", "params.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see `geozero/tasks/text.py`", "see [`geozero/tasks/text.py`](/api/geozero/tasks/text/index.rst)"),
        ("`geozero/tasks/`", "[`geozero/tasks/`](/api/geozero/tasks/index.rst)"),
        ("[tasks](../geozero/tasks)", "[tasks](/api/geozero/tasks/index.rst)"),
        (
            "[`geozero/tasks/text.py`](../geozero/tasks/text.py)",
            "[`geozero/tasks/text.py`](/api/geozero/tasks/text/index.rst)",
        ),
        ("`geozero/tasks/absent.py` and `geozero --help`", None),
        ("[parameters](../params.yaml), [page](other.md#part)", None),
        ("```\n`geozero/tasks/`\n```", None),
    ],
)
def test_paths_of_code_lead_to_their_api_pages(repository: Path, text: str, expected: str | None) -> None:
    assert with_code_links(text, "docs/page.md", repository, "api") == (expected or text)


def test_modules_are_listed_by_their_last_names() -> None:
    page = ".. toctree::\n   :maxdepth: 1\n\n   /docs/api/geozero/tasks/text/index\n"
    assert with_short_titles(page) == page.replace("/docs", "text </docs").replace("index", "index>")


def test_the_index_is_the_table_of_contents() -> None:
    index = "# Title\n## One\n| [r](../README.md), [a](a.md) | x |\n## Two\n[web](https://x.org/c.md)\n"
    tables = re.findall(
        r"```{toctree}\n:hidden:\n:caption: (.*)\n\n([^`]*)\n```",
        tables_of_contents(index, "docs/index.md", {"Two": ["/api"]}),
    )
    assert tables == [("One", "/README\n/docs/a"), ("Two", "/api")]


def test_every_path_of_code_that_the_documentation_names_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "data" / "samples").glob("*/*.md")]
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in pages
        for path in NAMED.findall(page.read_text())
        if not TO_BE_MADE.search(path) and not (ROOT / path).exists()
    ]
    assert missing == []


def test_every_link_has_a_scheme_that_the_site_knows() -> None:
    """Any other is taken for a page of ours, and the build fails."""
    (known,) = re.findall(r"^myst_url_schemes = (.+)$", (ROOT / "docs" / "conf.py").read_text(), re.M)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    used = {scheme for page in pages for scheme in re.findall(r"\]\((\w+)://", page.read_text())}
    assert "https" in used and used - set(ast.literal_eval(known)) == set()
