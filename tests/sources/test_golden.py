"""Every source's fixture becomes exactly the samples and rejects of fixtures/all_sources_golden.json, by `ingest`.

The fixtures are made anew at each run. `PYTHONPATH=.:tests:tests/support .venv/bin/python tests/sources/test_golden.py`
writes the golden file; read the difference before committing it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_caption_sets, make_own_data, make_question_sets, make_scene_sets
from paths import FIXTURES

from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.curation.ingest.ingest import ingest
from geozero.sources import SOURCES, Source, get, open_tree, with_options

GOLDEN = FIXTURES / "all_sources_golden.json"
MAKERS: dict[str, Callable[[Path], None]] = {
    **make_scene_sets.SETS,
    **make_caption_sets.SETS,
    **make_question_sets.SETS,
    **make_own_data.SETS,
}
OPTIONS = {
    "fmow": ["grounding=yes"],
    "coco": ["questions=presence,count"],
    "voc": ["questions=detection"],
    "yolo": ["questions=detection"],
    "rsvqa_hr": ["answers=binned"],
}


def rows(name: str, place: Path) -> dict[str, list[Any]]:
    """Samples (id, task, split, key of the image, question, …), rejects (key, reason, detail), fixes."""
    source: Source = with_options(get(name), OPTIONS.get(name, []))
    MAKERS[name](place / "root")
    repaired = ingest(source, place / "root", place / "corpus")["notes"].get("mended", {})
    corpus = Corpus(place / "corpus")
    samples = []
    for s in corpus.samples():
        asked = (s.id, s.task, s.split, s.image_key, s.question, s.answer, list(s.references))
        samples.append([*asked, list(s.box or ()), f"{s.width}x{s.height}", s.question_type, len(s.classes)])
    rejects = [[r["key"], r["reason"], r["detail"]] for r in corpus.rejects()]
    return {"samples": samples, "rejects": rejects, "mended": [list(item) for item in repaired.items()]}


@pytest.mark.parametrize("name", MAKERS)
def test_fixture_in_exact_samples_out(name: str, tmp_path: Path) -> None:
    assert rows(name, tmp_path) == json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"rsvg"}))  # its lists are no text: test_questions.py
@pytest.mark.parametrize("seed", range(5))
def test_random_damage_gives_records_rejects_or_one_line(name: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{name} {seed}")
    MAKERS[name](tmp_path)
    for path in sorted(p for p in tmp_path.rglob("*") if p.suffix in (".json", ".txt", ".csv", ".tar", ".png")):
        data = bytearray(path.read_bytes())
        for _ in range(rng.randint(0, 2) if data else 0):
            data[rng.randrange(len(data))] = rng.choice(b'0"{}[]<>&,x\x00\xff')
        path.write_bytes(bytes(data))
    source = with_options(get(name), OPTIONS.get(name, []))
    try:
        with open_tree(tmp_path) as tree:
            list(source.records(source.find(tree)))
    except InputError as error:
        assert "\n" not in str(error)


def test_every_source_has_a_fixture() -> None:
    elsewhere = {"aid", "rsvqa_lr", "rsicd", "dior_rsvg", "neon"}  # curation/test_ingest.py, test_neon.py
    missing = {name for name in SOURCES if not name.startswith("toy_")} - MAKERS.keys() - elsewhere
    assert missing == set(), "write a fixture, listed in SETS of a tests/fixtures/make_*_sets.py"


if __name__ == "__main__":
    import tempfile

    lines = []
    for name in MAKERS:
        with tempfile.TemporaryDirectory() as place:
            found = rows(name, Path(place))
        parts = [
            f'"{kind}": [' + ",".join(f"\n  {json.dumps(row, ensure_ascii=False)}" for row in found[kind]) + "]"
            for kind in ("samples", "rejects", "mended")
        ]
        lines.append(f'"{name}": {{' + ", ".join(parts) + "}")
    GOLDEN.write_text("{" + ",\n".join(lines) + "}\n")
