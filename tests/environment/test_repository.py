"""What lies in the repository: no large file, no path of somebody's own machine, no link to nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

LARGEST = 20_000_000  # bytes
HOMES = ("home", "root", "Users", "work", "opt")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OWN_PATH = re.compile(rb"(?<![\w.\-~}>)/*])/(?:%b)/[\w.\-]+" % "|".join(HOMES).encode())


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of tracked files")
    names = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in names.decode().split("\0") if name and (path := ROOT / name).is_file()]


def own_paths(data: bytes) -> list[str]:
    """Absolute paths below a home or a work directory, in a text file."""
    return [] if b"\0" in data else [found.decode() for found in OWN_PATH.findall(data)]


def test_no_tracked_file_is_large() -> None:
    assert [f"{path}: {path.stat().st_size}" for path in tracked() if path.stat().st_size > LARGEST] == []


def test_no_tracked_file_names_a_path_of_somebodys_machine() -> None:
    found = {str(path.relative_to(ROOT)): own_paths(path.read_bytes()) for path in tracked()}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_every_relative_link_in_the_documentation_leads_somewhere() -> None:
    broken = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in LINK.findall(page.read_text()):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                file = page.parent / target.split("#")[0]
                broken += [f"{page.relative_to(ROOT)}: {target}"] if not file.exists() else []
    assert broken == []


def test_the_index_lists_every_page() -> None:
    listed = {(ROOT / "docs" / target).resolve() for target in LINK.findall((ROOT / "docs" / "index.md").read_text())}
    pages = {path for path in tracked() if path.suffix == ".md" and path.parent == ROOT / "docs"}
    assert {path.name for path in pages - listed} <= {"index.md"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("root: /{}/ada/geozero", True),
        ('"_name_or_path": "/{}/x"', True),
        ("see docs/{}/index.md and https://example.org/{}/x", False),
        ("~/{}/x, $HOME/{}/x, {{root}}/{}/x", False),
    ],
)
@pytest.mark.parametrize("home", HOMES)
def test_the_reader_of_paths_sees_absolute_ones(text: str, seen: bool, home: str) -> None:
    assert bool(own_paths(text.replace("{}", home).encode())) == seen
