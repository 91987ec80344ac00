"""From a score to everything that it comes from, and from any of that back to the runs that used it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.tracking import PARENT_TAG, REUSED_TAG, RUN_ID_FILE, Tracker
from geozero.tracking.lineage import CHANGED_TAG, COMMIT_TAG, hashes
from geozero.tracking.runs import SYSTEM, all_runs, label, require_store, resolve

if TYPE_CHECKING:
    from mlflow.entities import Run

FLOW_RUN_TAG, FLOW_PAGE_TAG, FLOW_TAG = "prefect.flow_run", "prefect.page", "prefect.flow"
CORPUS_TAG = "corpus."  # + its path: the digest of the corpus
MODEL_PATH, MODEL_HASH, BASE_PATH, BASE_HASH = "model.path", "model.hash", "base.path", "base.hash"
PAGE, PROVENANCE, MANIFEST = "reports/index.html", "reports/data/lineage.json", "manifest.json"
SCORES = "scores-"  # begins the name of a run that holds one model's scores in one prompt mode
SHORTEST = 6  # characters of a hash that name it


@dataclass(frozen=True)
class Fact:
    """One line of a trace: a kind such as `data`, what it is about, its value."""

    kind: str
    name: str
    value: str


def find(tracker: Tracker, text: str) -> list[Run]:
    """The runs that a text names: one of `runs.resolve`'s names, a Prefect run, a page, a directory of `runs/` or below
    it; or, the newest first, all that used what it names: a corpus, a data directory, a checkpoint, a hash, a commit.

    Raises:
        InputError: there is none.
    """
    require_store(tracker)
    path = Path(text)
    if path.exists() or (path := tracker.project / text).exists():
        if known := _recorded(path.resolve()):
            return [resolve(tracker, known)]
        names = _names_of(tracker.project, path.resolve())
    else:
        try:
            return [resolve(tracker, text)]
        except InputError as unknown:
            names, missing = [text], unknown
            if len(text) < SHORTEST:
                raise
    if found := [run for run in all_runs(tracker) if any(_is(value, names) for value in _values(run))]:
        return found
    if names == [text]:
        raise missing
    raise InputError("no run used it", str(path), "`geozero runs list` lists the runs")


def trace(tracker: Tracker, run: Run) -> Iterator[Fact]:
    """What a run records about itself and its origin; for a stage or a set of scores, its pipeline run's, too."""
    parent = tracker.run(run.data.tags.get(PARENT_TAG, "")) if PARENT_TAG in run.data.tags else None
    top = parent or run
    tags = top.data.tags
    yield Fact("run", label(top), top.info.status)
    if run is not top:
        yield Fact("within it", label(run), run.info.status)
    yield Fact("MLflow", run.info.run_id, tracker.address(run.info.run_id))
    if _page_run(tracker.project / PROVENANCE) == top.info.run_id:
        yield Fact("page", PAGE, str(tracker.project / PAGE))
    if flow_run := tags.get(FLOW_RUN_TAG):
        page = tags.get(FLOW_PAGE_TAG, "")
        yield Fact("flow run", flow_run, page if page.startswith("http") else tags.get(FLOW_TAG, ""))
    yield Fact("code", tags.get(COMMIT_TAG, "unknown"), f"changed since: {tags.get(CHANGED_TAG, 'unknown')}")
    for name, value in sorted(top.data.params.items()):
        yield Fact("parameter", name, value)
    yield from _data(tracker.project, top)
    if MODEL_PATH in tags:
        yield Fact("checkpoint", tags[MODEL_PATH], tags.get(MODEL_HASH, ""))
    for stage in tracker.stages(top):
        if not str(stage.info.run_name).startswith(SCORES):
            yield from _stage(tracker, stage)
    yield from _scores(tracker, top, run)
    for other in all_runs(tracker):
        if any(k.startswith(REUSED_TAG) and v == run.info.run_id for k, v in other.data.tags.items()):
            yield Fact("used again by", label(other), other.info.status)


def _data(project: Path, run: Run) -> Iterator[Fact]:
    """The hashes of the data, and whether the checkout still has it; the corpora by their own digests."""
    here = hashes(project)
    recorded = {k.removeprefix("dvc."): v for k, v in run.data.tags.items() if k.startswith("dvc.")}
    for entry in run.inputs.dataset_inputs if run.inputs else []:
        recorded.setdefault(entry.dataset.name, next((t.value for t in entry.tags if t.key == "dvc.md5"), ""))
    for path, value in recorded.items():
        state = "as here" if here.get(path) == value else "other than here" if path in here else "not here"
        yield Fact("data", path, f"{value}\t{state}")
        digest = run.data.tags.get(CORPUS_TAG + path)
        if state == "as here" and (project / path / MANIFEST).is_file():
            corpus = Corpus(project / path)
            yield Fact("corpus", path, f"{corpus.digest}\t{_made_by(corpus.manifest.get('made_by'))}")
        elif digest:
            yield Fact("corpus", path, digest)


def _made_by(given: Any) -> str:
    """What a manifest says of how the corpus was made, in one line: texts and numbers, no nested settings."""
    if not isinstance(given, dict):
        return str(given or "")
    values = {key: value for key, value in given.items() if isinstance(value, str | int | float)}
    values |= {
        key: ", ".join(map(str, v))
        for key, v in given.items()
        if isinstance(v, list) and all(isinstance(one, str) for one in v)
    }
    return "made by " + ", ".join(f"{key} {value}" for key, value in values.items())


def _stage(tracker: Tracker, stage: Run) -> Iterator[Fact]:
    """A trained stage: its directory, what it learned from and began with, and the checkpoint that it left."""
    name, tags = str(stage.info.run_name), stage.data.tags
    where = f"runs/{tags.get('run_dir', '')}"
    record = _json(tracker.project / where / "stage.json")
    yield Fact("stage", name, f"{label(stage)}\t{where}")
    for entry in stage.inputs.dataset_inputs if stage.inputs else []:
        yield Fact(
            "stage data", name, f"{entry.dataset.name}\t{next(t.value for t in entry.tags if t.key == 'dvc.md5')}"
        )
    base = tags.get(BASE_PATH, record.get("base")), tags.get(BASE_HASH, record.get("base_hash"))
    if any(base):
        yield Fact("stage base", name, "\t".join(str(value) for value in base if value))
    for output in stage.outputs.model_outputs if stage.outputs else []:
        path = tracker.client.get_logged_model(output.model_id).tags.get("path", "")
        state = "here" if (tracker.project / path).is_dir() else "not here"
        yield Fact("checkpoint", path, "\t".join(filter(None, [tags.get(MODEL_HASH), state])))


def _scores(tracker: Tracker, top: Run, run: Run) -> Iterator[Fact]:
    """The scores of a pipeline run, by model and prompt mode; those of one set where `run` is one."""
    sets = [one for one in tracker.stages(top) if str(one.info.run_name).startswith(SCORES)]
    for one in [run] if any(one.info.run_id == run.info.run_id for one in sets) else sets:
        for metric, value in sorted(one.data.metrics.items()):
            yield Fact("score", f"{str(one.info.run_name).removeprefix(SCORES)}: {metric}", f"{value:.6g}")
    if not sets:
        for metric, value in sorted(top.data.metrics.items()):
            if not metric.startswith(SYSTEM):
                yield Fact("score", metric, f"{value:.6g}")


def _recorded(path: Path) -> str:
    """The run that a file or directory belongs to: that of the page, or of the stage's directory around it; else ""."""
    if path.name in (Path(PAGE).name, Path(PROVENANCE).name) or path.name == "reports":
        reports = path if path.is_dir() else path.parent if path.suffix == ".html" else path.parents[1]
        return _page_run(reports / "data" / Path(PROVENANCE).name)
    for place in (path, *path.parents[:2]):
        if (place / RUN_ID_FILE).is_file():
            return (place / RUN_ID_FILE).read_text().strip()
    return ""


def _names_of(project: Path, path: Path) -> list[str]:
    """What runs call a path: its hash by DVC and its digest as a corpus; the path itself where it has neither."""
    place = path.relative_to(project.resolve()).as_posix() if path.is_relative_to(project.resolve()) else str(path)
    digest = Corpus(path).digest if (path / MANIFEST).is_file() else None
    return [v for v in (hashes(project).get(place), digest) if v] or [place, str(path)]


def _values(run: Run) -> Iterator[str]:
    """Everything by which a run may be found."""
    yield from run.data.tags.values()
    for entry in run.inputs.dataset_inputs if run.inputs else []:
        yield from (tag.value for tag in entry.tags)
    if "fingerprint" in run.data.params:
        yield run.data.params["fingerprint"]


def _is(value: str, names: list[str]) -> bool:
    return any(value == one or (len(one) >= SHORTEST and "/" not in one and value.startswith(one)) for one in names)


def _page_run(provenance: Path) -> str:
    return str(_json(provenance).get("mlflow_run", ""))


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing or holds something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
