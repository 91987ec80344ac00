"""The flow that maps shards over workers: complete store, throughput in MLflow, one failing share, bad input."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from difficulty_world import make_corpus
from flows_checkout import ROOT, checkout, python, settings

from geozero.common import process
from geozero.common.errors import InputError
from geozero.difficulty.answer_store import answer_files, current

TIME = 1200.0  # seconds; two quiet cores take a twentieth of it


def artifacts(database: Path) -> str:
    """The descriptions of all of Prefect's artifacts."""
    with closing(sqlite3.connect(database)) as opened:
        return "\n".join(text or "" for (text,) in opened.execute("select description from artifact"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2 * TIME)
def test_shards_fill_one_store_and_a_second_run_asks_nothing(tiny_random: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    sampling = {"engine": "transformers", "k": 2, "max_tokens": 8, "workers": 1}
    path = checkout(tmp_path / "checkout", settings(sampling=sampling))
    shutil.copytree(tiny_random, path / "models/filter/fold-0")
    make_corpus(path / "data/geozero-raw", 6)
    done = python(path, "flows.difficulty", "--shards", "2", timeout=TIME)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    store = path / "data/difficulty"
    (key,) = current(store)["fingerprints"]
    files = answer_files(store / key)
    assert {file.name.split("-")[1] for file in files} == {"0of2", "1of2"}
    counts = Counter(i for file in files for i in pq.read_table(file)["id"].to_pylist())
    assert len(counts) == 24 and set(counts.values()) == {2}
    client = MlflowClient(tracking_uri=f"sqlite:///{path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "geozero"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics["sample.answers_per_second"] > 0
    assert {"sample.0.tokens_per_second", "sample.1.tokens_per_second"} <= run.data.metrics.keys()
    again = python(path, "flows.difficulty", "--shards", "3", timeout=TIME)
    assert again.returncode == 0 and "over all shards 0.0 answers a second" in again.stderr, again.stderr[-2000:]
    assert answer_files(store / key) == files
    assert "sample-1-of-2: answer" in artifacts(path / ".prefect/prefect.db")


def test_a_worker_refuses_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.difficulty import sample_shard

    for there, gpus, words in ((False, 0, "this machine has none in gpus"), (True, 2, "no GPU 3: this machine has 2")):
        monkeypatch.setattr(process, "has_gpu", lambda there=there: there)
        monkeypatch.setattr(process, "gpus", lambda gpus=gpus: gpus)
        with pytest.raises(InputError, match=words):
            sample_shard.fn(0, 3, None, 1, "")


@pytest.mark.slow
@pytest.mark.timeout(2 * TIME)
def test_bad_input_is_one_line(tmp_path: Path) -> None:
    missing = python(ROOT, "flows.difficulty", "--params", str(tmp_path / "missing.yaml"), timeout=TIME)
    assert missing.returncode == 2 and "no such parameter file" in missing.stderr.splitlines()[-1]
    path = checkout(tmp_path / "checkout", settings())
    wrong = python(path, "flows.difficulty", "--shards", "2", "--only", "2", timeout=TIME)
    assert wrong.returncode == 2 and "no such shards: [2] of 2" in wrong.stderr.splitlines()[-1]
    twice = python(path, "flows.difficulty", "--shards", "2", "--only", "1", "1", timeout=TIME)
    assert twice.returncode == 2 and "more than once: [1]" in twice.stderr.splitlines()[-1]
    early = python(path, "flows.difficulty", timeout=TIME)
    assert early.returncode == 2 and "dvc repro raw" in early.stderr.splitlines()[-1]
