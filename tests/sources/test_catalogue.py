"""The table of addresses in docs/sources.md says what the catalogue says."""

from __future__ import annotations

from collections.abc import Iterator

from paths import ROOT

from geozero.sources import get
from geozero.sources.catalogue import Way, catalogue

HEAD = "| name | page | `geozero download` takes | other ways | seen |\n|---|---|---|---|---|\n"


def linked(way: Way) -> str:
    size = f", {way.size}" if way.size else ""
    return f"[{way.by}]({way.address}){size}" if way.address else f"{way.by}{size}"


def rows() -> Iterator[str]:
    for name, entry in catalogue().items():
        taken = entry.automatic
        others = [linked(way) for way in entry.ways if way is not taken]
        page = entry.page if entry.page.startswith("http") else f"[{entry.page}](../{entry.page})"
        seen = max(way.seen for way in entry.ways)
        columns = (f"`{name}`", page, linked(taken) if taken else "prints steps", "; ".join(others), str(seen))
        yield f"| {' | '.join(columns)} |\n"


def test_the_documentation_has_this_table() -> None:
    table = HEAD + "".join(rows())
    assert table in (ROOT / "docs/sources.md").read_text(), f"put this into docs/sources.md:\n{table}"


def test_its_counts_are_those_that_the_adapters_know() -> None:
    for name, entry in catalogue().items():
        published = get(name).published
        assert entry.images == published.images or (name == "neon" and published.images is None), name
        assert entry.samples in (None, published.samples) or name == "neon", name
