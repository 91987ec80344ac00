"""What `geozero ingest` makes of inputs that people report: counts, refusals or the one line, as in the golden file.

`PYTHONPATH=.:tests:tests/support .venv/bin/python tests/sources/test_situations.py` writes the golden file; read the
difference before committing it. Beside each result stands what the input must give: `read` or `stopped`.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fixtures.situations import SITUATIONS
from paths import FIXTURES

from geozero.common.errors import InputError
from geozero.curation.ingest.ingest import ingest
from geozero.sources import get, with_options

GOLDEN = FIXTURES / "situations_golden.json"
SLOW = {"rsvg_numpy", "rsvg_lists"}  # they import torch


def result(name: str, place: Path) -> dict[str, Any]:
    """Samples by task and split, images, rejects by reason, the rule of the splits; or the line of an error."""
    root = place / "in"
    root.mkdir(parents=True)
    source, *words = SITUATIONS[name](root)
    options = [after for word, after in pairwise(words) if word == "--set"]
    given = Path(words[words.index("--root") + 1]) if "--root" in words else root
    try:
        manifest = ingest(with_options(get(source), options), given, place / "out")
    except InputError as error:
        assert "\n" not in str(error)
        return {"stopped": str(error).replace(str(place), "…")}
    return {
        "read": {f"{row['task']}/{row['split']}": row["n"] for row in manifest["counts"]},
        "images": manifest["n_images"],
        "rejects": {row["reason"]: row["n"] for row in manifest["rejects"]},
        "splits": manifest["notes"].get("splits", "").replace(str(place), "…"),
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SITUATIONS]
)
def test_what_people_report(name: str, tmp_path: Path) -> None:
    assert result(name, tmp_path) == json.loads(GOLDEN.read_text())[name]


def test_the_golden_file_is_complete() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == SITUATIONS.keys()


if __name__ == "__main__":
    import tempfile

    lines = []
    for name in SITUATIONS:
        with tempfile.TemporaryDirectory() as place:
            lines.append(f'"{name}": {json.dumps(result(name, Path(place)), ensure_ascii=False)}')
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
