"""Configuration of the documentation site: `make docs` builds it into docs/_build.

Sphinx reads the repository's Markdown pages where they lie: its source directory is the repository's root, so that
relative links are the same here, on the site and in any viewer of Git repositories. The API reference is parsed from
the source (sphinx-autoapi) and imports nothing of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from plain_docstrings import to_rest  # noqa: E402
from repository_pages import CODE_ROOTS, tables_of_contents, with_code_links, with_short_titles  # noqa: E402

project = "GeoZero"
author = "GeoZero contributors"
project_copyright = author
version = release = dict(re.findall(r'^(__version__) = "(.+)"$', (ROOT / "geozero/__init__.py").read_text(), re.M))[
    "__version__"
]

extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension", "sphinx_copybutton"]
API = "docs/api"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "requirements/*.md", "data/samples/*/*.md", f"{API}/**"]
read = {"docs", "requirements", "data"}  # the other directories are large (.venv, runs) and hold no page
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in read]
exclude_patterns += [f"data/{path.name}" for path in (ROOT / "data").iterdir() if path.name != "samples"]
exclude_patterns += ["docs/_build"]

myst_heading_anchors = 3
myst_url_schemes = ("http", "https", "mailto", "s3")

autoapi_dirs = [str(ROOT / name) for name in CODE_ROOTS]
autoapi_root = API
autoapi_options = ["members", "undoc-members", "show-inheritance", "show-module-summary"]
autoapi_add_toctree_entry = False
napoleon_use_ivar = True  # else each attribute is described twice
suppress_warnings = [
    "autoapi.python_import_resolution",  # names that one assignment makes several of, which autoapi does not find
    "ref.python",  # annotations are short names, and two modules may define the same one
]

toc_object_entries = (
    False  # the sidebar copies these into every page, which takes minutes; each page has a table of them
)

html_theme = "furo"
html_title = "GeoZero"
html_show_sphinx = False
html_copy_source = False
html_additional_pages = {"index": "redirect.html"}  # from the site's root to docs/index.html
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    page = f"{docname}.md"
    if docname.startswith(API):
        source[0] = with_short_titles(source[0])
    elif (ROOT / page).is_file():
        extra = {"Reference": [f"/{API}/{name}/index" for name in CODE_ROOTS]}
        contents = tables_of_contents(source[0], page, extra) if docname == root_doc else ""
        source[0] = with_code_links(source[0], page, ROOT, API) + contents


def read_docstring(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = to_rest(lines)


def setup(app: Sphinx) -> None:
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon reads the sections
