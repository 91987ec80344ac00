"""The repository's Markdown pages on the site: tables of contents, and links from paths of code to the API."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

CODE_ROOTS = ("geozero", "flows")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#:]+)\)")
MODULE = re.compile(r"^( +)(/\S+/(\w+)/index)$", re.MULTILINE)
PATH = re.compile(r"(?<!\[)`((?:geozero|flows)/[\w./]*)`")


def with_code_links(text: str, page: str, root: Path, api: str) -> str:
    """The page with every path of a module or package, as a link's target or as `code`, leading to its API page.

    Args:
        text: Markdown.
        page: the page's path below `root`, from which its links are relative.
        root: the repository.
        api: the directory of the API pages below `root`.
    """

    def document(path: str) -> str | None:
        path = posixpath.normpath(path)
        is_module = path.endswith(".py") and (root / path).is_file()
        if path.split("/")[0] not in CODE_ROOTS or not (is_module or (root / path / "__init__.py").is_file()):
            return None
        return f"/{api}/{path.removesuffix('.py').removesuffix('/__init__')}/index.rst"

    def link(found: re.Match[str]) -> str:
        target = document(posixpath.join(posixpath.dirname(page), found[1]))
        return f"]({target})" if target else found[0]

    def code(found: re.Match[str]) -> str:
        target = document(found[1])
        return f"[{found[0]}]({target})" if target else found[0]

    parts = FENCED.split(text)
    parts[::2] = [PATH.sub(code, LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)


def with_short_titles(text: str) -> str:
    """An API page, reStructuredText, with the modules of its table of contents by their last names."""
    return MODULE.sub(r"\1\3 <\2>", text)


def tables_of_contents(index: str, page: str, extra: dict[str, list[str]]) -> str:
    """Hidden tables of contents for the site, one for each second-level heading of the index page.

    Args:
        index: the index page, Markdown; the pages that it links to make the tables.
        page: its path below the site's source directory.
        extra: further documents, by the heading of their table.
    """
    tables: dict[str, list[str]] = {}
    heading = ""
    for line in index.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        for target in LINK.findall(line):
            if target.endswith(".md"):
                path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
                tables.setdefault(heading, []).append("/" + path.removesuffix(".md"))
    for heading, documents in extra.items():
        tables.setdefault(heading, []).extend(documents)
    return "".join(
        "\n".join(("\n```{toctree}", ":hidden:", f":caption: {heading}", "", *documents, "```\n"))
        for heading, documents in tables.items()
    )
