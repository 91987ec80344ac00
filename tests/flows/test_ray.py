"""Difficulty through Ray: a local cluster of two workers fills one store, and loses one of them on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from difficulty_world import make_corpus
from flows_checkout import checkout, python, settings

from geozero.difficulty.answer_store import answer_files, current

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that takes no work, and two workers of one core each."""
    pytest.importorskip("ray", reason="`make test-ray` installs it")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield started
    started.shutdown()


def test_a_lost_worker_loses_nothing(cluster: Any, tiny_random: Path, tmp_path: Path) -> None:
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    sampling = {"engine": "transformers", "k": 8, "max_tokens": 48, "chunk": 16, "workers": 1}
    path = checkout(tmp_path / "checkout", settings(sampling=sampling))
    shutil.copytree(tiny_random, path / "models/filter/fold-0")
    make_corpus(path / "data/geozero-raw", 24)
    store, words = path / "data/difficulty", ["--shards", "3", "--ray", cluster.address]
    running = subprocess.Popen(
        [sys.executable, "-m", "flows.difficulty", *words], cwd=path, env={**os.environ, "PYTHONPATH": str(path)}
    )
    deadline = time.monotonic() + 300
    while len(list(store.glob("*/answers-*.parquet"))) < 3 and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.05)
    before = len(list(store.glob("*/answers-*.parquet")))
    cluster.remove_node(workers[0], allow_graceful=False)
    assert running.wait(timeout=600) == 0
    (key,) = current(store)["fingerprints"]
    files = answer_files(store / key)
    assert 3 <= before < len(files) and {file.name.split("-")[1] for file in files} == {f"{i}of3" for i in range(3)}
    rows = Counter((r["id"], r["rollout"]) for f in files for r in pq.read_table(f).to_pylist())
    assert len(rows) == 96 * 8 and set(rows.values()) == {1}


def test_ingest_over_a_cluster_is_that_of_one_process_bit_for_bit(cluster: Any, tmp_path: Path) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    params = settings(data={"sources": [], "optional": [], "eval_only": [], "samples": ["neon"]})
    made = {}
    for name, module, words in (
        ("alone", "dvc", ["repro", "raw"]),
        ("cluster", "flows.ingest", ["--shards", "2", "--ray", cluster.address]),
    ):
        path = checkout(tmp_path / name, params)
        done = python(path, module, *words, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        corpora = [file for made_by in ("corpus/neon", "geozero-raw") for file in (path / "data" / made_by).iterdir()]
        made[name] = {f"{file.parent.name}/{file.name}": file.read_bytes() for file in corpora}
    assert made["cluster"] == made["alone"] and len(made["alone"]) > 8
    assert sorted((tmp_path / "cluster/runs/logs").glob("decode-neon-*of2.log"))
    again = python(tmp_path / "cluster", "flows.ingest", "--shards", "2", timeout=600)
    assert again.returncode == 0 and "decode-neon" not in again.stderr, again.stderr[-2000:]


def test_evaluation_over_a_cluster_is_that_of_one_process_bit_for_bit(
    cluster: Any, tiny_random: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    params = settings(
        data={"sources": [], "optional": [], "eval_only": [], "samples": ["neon"]},
        sampling={"engine": "transformers"},
        evaluation={"max_tokens": 8, "limit": 12, "forced": 4, "swapped": 4},
    )
    path = checkout(tmp_path / "checkout", params)
    assert python(path, "dvc", "repro", "ingest_samples@neon", timeout=600).returncode == 0
    words = [str(tiny_random), "--params", "params.yaml"]
    made = []
    for name, more in (("alone", []), ("cluster", ["--shards", "2", "--ray", cluster.address])):
        done = python(path, "flows.evaluate", *words, *more, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        out = (path / "runs/answers-model").rename(path / f"runs/{name}")
        made.append({str(file.relative_to(out)): file.read_bytes() for file in out.rglob("neon*.json")})
        assert len(list(out.glob("job-*of2.json"))) == (2 if more else 0)
    assert made[0] == made[1] and any("tagged" in name for name in made[0])


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="`make test-ray` installs it")
    path = checkout(tmp_path / "checkout", settings())
    done = python(path, "flows.difficulty", "--ray", "127.0.0.1:1", timeout=300)
    assert done.returncode == 2 and "no Ray cluster answers" in done.stderr.splitlines()[-1], done.stderr[-2000:]
