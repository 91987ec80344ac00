"""DVC links its cache: outputs are the cache's own files, and no stage of ours ever writes into one of them."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from build_world import corpus, pair
from paths import ROOT

from geozero.corpus.store import Corpus
from geozero.curation.decontamination.merge import raw

STORE = """
import json, sys
from pathlib import Path
from geozero.common.atomic import write_json
from geozero.difficulty.answer_store import ANSWER_SCHEMA, AnswerWriter, Fingerprint

fingerprint = Fingerprint("m", "p", 1.0, 1.0, 8, 7, 100, 100, "norm1000")
rows = [{f.name: None for f in ANSWER_SCHEMA} | {"id": sys.argv[1], "rollout": 0, "text": "", "reward": 0.0,
    "finish_reason": "stop", "n_tokens": 1, "model": "m", "prompt_hash": "h"}]
AnswerWriter(Path("store"), fingerprint).write(rows)
write_json(Path("store/_current.json"), {"k": sys.argv[1]})
"""
CONFIGURED = "hardlink,symlink"


def dvc(place: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(place / ".s"),
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cache_is_whole(place: Path) -> int:
    """Every file of the cache still has the content that it is named after; how many there are."""
    files = [p for p in (place / ".dvc/cache/files/md5").glob("*/*") if p.is_file()]
    for path in files:
        name = (path.parent.name + path.name).removesuffix(".dir")
        assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == name
    return len(files)


def test_the_cache_is_linked() -> None:
    config = configparser.ConfigParser()
    config.read_string("\n".join(line.strip() for line in (ROOT / ".dvc/config").read_text().splitlines()))
    # `reflink` first would leave copies where the file system has no reflinks: DVC takes any file of its own for one
    assert config["cache"]["type"].strip('"') == CONFIGURED


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CONFIGURED, "symlink"])
def test_no_stage_writes_into_the_cache(kind: str, tmp_path: Path) -> None:
    dvc(tmp_path, "init", "--no-scm", "-q")
    dvc(tmp_path, "config", "cache.type", kind)
    (tmp_path / "store.py").write_text(STORE)
    (tmp_path / "n").write_text("1")
    corpus(tmp_path / "one", pair(1, "s/1"), pair(2, "s/2"))
    stages = {
        "raw": {
            "cmd": "python -m geozero.cli raw --in one --out raw",
            "deps": ["one"],
            "outs": ["raw"],
        },
        "store": {"cmd": "python store.py $(cat n)", "deps": ["n"], "outs": [{"store": {"persist": True}}]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc(tmp_path, "add", "-q", "one")
    dvc(tmp_path, "repro", "-q")
    tar = tmp_path / "one" / "images-00000.tar"
    assert tar.is_symlink() or tar.stat().st_nlink > 1
    made = [*tmp_path.glob("raw/*"), *tmp_path.glob("store/**/*.parquet")]
    assert made and all(p.is_symlink() or p.stat().st_nlink > 1 for p in made)
    before = cache_is_whole(tmp_path)
    # what people do by hand over a linked output: the same again, then other content
    assert raw([tmp_path / "one"], [], tmp_path / "raw") == Corpus(tmp_path / "raw").manifest
    corpus(tmp_path / "one", pair(1, "s/1"), pair(3, "s/3"))
    raw([tmp_path / "one"], [], tmp_path / "raw")
    assert cache_is_whole(tmp_path) == before
    (tmp_path / "n").write_text("2")
    dvc(tmp_path, "add", "-q", "one")
    dvc(tmp_path, "repro", "-q")
    assert len(list((tmp_path / "store").glob("*/answers-*.parquet"))) == 2  # the store was kept, and grew
    assert json.loads((tmp_path / "store" / "_current.json").read_text()) == {"k": "2"}
    assert cache_is_whole(tmp_path) > before
    Corpus(tmp_path / "raw").verify()
