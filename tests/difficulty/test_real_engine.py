"""Difficulty with a real engine: two models one after the other in one process, as cross-fitting needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from difficulty_world import make_corpus, sample

from geozero.difficulty.answer_store import answer_files

pytestmark = pytest.mark.slow

SETTINGS = {
    "k": 3,
    "max_tokens": 8,
    "dtype": "float32",
    "max_pixels": 65536,
    "max_length": 512,
    "template": "geozero_qwen3_vl",
    "chunk": 24,
}


@pytest.mark.parametrize("engine", ["auto", pytest.param("transformers", marks=pytest.mark.long)])
def test_two_folds_are_sampled_by_two_models(engine: str, tiny_random: Path, tmp_path: Path) -> None:
    from tiny_random import build

    corpus = make_corpus(tmp_path / "corpus", 6)
    other = build(tmp_path / "other", seed=1)
    done = subprocess.run(
        [sys.executable, __file__, engine, str(corpus), str(tmp_path / "store"), str(tiny_random), str(other)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["new"] == 72 and len(set(summary["directories"])) == len(summary["engines"]) == 2
    rows = [r for d in summary["directories"] for p in answer_files(Path(d)) for r in pq.read_table(p).to_pylist()]
    assert len({(r["id"], r["rollout"]) for r in rows}) == len(rows) == 72
    assert len({r["text"] for r in rows}) > 36 and {r["finish_reason"] for r in rows} <= {"stop", "length"}


def main(engine: str, corpus: str, store: str, *models: str) -> None:
    found = sample(Path(corpus), list(models), Path(store), engine=engine, **SETTINGS)
    again = sample(Path(corpus), list(models), Path(store), engine=engine, **SETTINGS)
    assert again.n_new == 0 and not again.engines
    print(json.dumps({"new": found.n_new, "directories": found.directories, "engines": found.engines}))


if __name__ == "__main__":
    main(*sys.argv[1:])
