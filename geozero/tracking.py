"""Runs in MLflow: one parent run per pipeline run, one child per stage, every call with an explicit run id.

MLflow's active run is thread-local and Prefect runs tasks in threads, so nothing here depends on an active run.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from geozero.atomic import write_text
from geozero.errors import InputError
from geozero.process import QUIET_AND_OFFLINE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

RUN_ID_FILE = "mlflow_run_id"  # beside the checkpoints, so that a resumed stage reopens its run
PARENT_TAG = "mlflow.parentRunId"
REUSED_TAG = "reused."  # + a stage's name: the run that did its work
PARAMS_PER_BATCH, METRICS_PER_BATCH, DIGEST_LENGTH = 100, 1000, 36  # MLflow's limits
LOCAL_UI = "http://127.0.0.1:5000"
STACK = ".geozero/stack/state.json"  # what `geozero stack up` writes while it runs
PAGES = "GEOZERO_MLFLOW_UI"  # environment variable: where somebody serves the pages of a SQLite store
RETRIES = "2"  # with MLflow's default of 7 an unreachable server costs four minutes before the first message
TIMEOUT = "30"  # seconds for one request; MLflow waits 120

_REFUSED = re.compile(r"\[Errno -?\d+\] ([^'\")]+)")
_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True)
class Tracker:
    """A tracking store and an experiment in it; plain values inside, so it can be pickled and sent to a worker.

    `uri` is `sqlite:///mlflow.db` (relative to `project`) or a server's `http://…`; `project` the directory that
    holds params.yaml, where the artifacts of a SQLite store go, too (`mlartifacts/`).
    """

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "geozero"
    project: Path = Path()

    @property
    def store(self) -> str:
        """The URI with a relative SQLite path made absolute."""
        path = self.uri.removeprefix("sqlite:///")
        if path == self.uri or path.startswith("/") or path in ("", ":memory:"):
            return self.uri
        return f"sqlite:///{(self.project / path).resolve()}"

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client of this store: what has no method here (reading and searching runs) is done with it."""
        return _client(self.store)

    def answers(self) -> bool:
        """Whether the store can be read now."""
        try:
            self.client.search_experiments(max_results=1)
        except Exception:  # whatever it is, it does not answer
            return False
        return True

    def open_pipeline(
        self, name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Start the parent run of one pipeline run; returns its id. `params` as nested as params.yaml, `tags` for
        instance `lineage.tags(project)`. Raises InputError where the store can't be opened or reached.
        """
        run_id = self._create(name, tags or {})
        self.log_params(run_id, params or {})
        return run_id

    def run(self, run_id: str) -> Run | None:
        """A run as MLflow has it; None where it has none of this id."""
        return self._find(run_id)

    def search(self, page: str | None = None) -> Any:
        """Runs of the experiment, the newest first: MLflow's paged list, `page` the token of the one before."""
        newest = ["attributes.start_time DESC"]
        return self.client.search_runs([self._experiment()], order_by=newest, page_token=page, max_results=1000)

    def find(self, tag: str, value: str) -> str | None:
        """The newest run of the experiment with this tag; None where there is none."""
        experiment = self._experiment()
        found = self.client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def reopen(self, run_id: str) -> None:
        """Go on in a run that had ended."""
        self.client.update_run(run_id, status="RUNNING")

    def stages(self, parent: Run) -> list[Run]:
        """The runs under a pipeline run, and those of the stages that it reused, by name."""
        under = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'"
        found = list(self.client.search_runs([parent.info.experiment_id], under, max_results=1000))
        known = {one.info.run_id for one in found}
        for tag, value in parent.data.tags.items():
            if tag.startswith(REUSED_TAG) and value not in known:
                reused = self.run(value)
                found += [reused] if reused is not None else []
        return sorted(found, key=lambda one: str(one.info.run_name))

    def remembered(self, run_dir: Path) -> str | None:
        """The id of the run that a stage's directory remembers, where the store has it."""
        known = self._remembered(run_dir)
        return str(known.info.run_id) if known else None

    def child(
        self,
        parent: str,
        stage: str,
        run_dir: Path,
        tags: Mapping[str, str] | None = None,
        at: int | None = None,
    ) -> str:
        """The run of a stage under `parent`: the one `run_dir` remembers, reopened, or else a new one, which began `at`
        (milliseconds since 1970; now if left out).

        A reopened run moves under the new parent. Its former parent, if it still counts as running, was killed
        (a run directory has one writer) and is closed as such.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        known = self._remembered(run_dir)
        if known is None:
            known_as = {PARENT_TAG: parent, "stage": stage, "run_dir": run_dir.name, **(tags or {})}
            run_id = self._create(stage, known_as, at)
            write_text(run_dir / RUN_ID_FILE, run_id)
            return run_id
        run_id = str(known.info.run_id)
        former = self._find(known.data.tags.get(PARENT_TAG, parent))
        if former is not None and former.info.run_id != parent and former.info.status == "RUNNING":
            self.finish(former.info.run_id, "KILLED")
        self.reopen(run_id)
        for key, value in {PARENT_TAG: parent, **(tags or {})}.items():
            self.client.set_tag(run_id, _name(key), value)
        return run_id

    @contextmanager
    def stage(self, parent: str, stage: str, run_dir: Path, tags: Mapping[str, str] | None = None) -> Iterator[str]:
        """`child`, finished when the block ends: FAILED after an error, KILLED after an interrupt or a cancel."""
        run_id = self.child(parent, stage, run_dir, tags)
        try:
            yield run_id
        except BaseException as error:
            self.finish(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.finish(run_id)

    def note_reused(self, parent: str, stage: str, path: Path) -> str | None:
        """Tag the parent with the run of a stage that was found done and is reused; returns that run's id."""
        run_id = self.remembered(path)
        self.client.set_tag(parent, REUSED_TAG + stage, run_id or path.name)
        return run_id

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log nested settings flat with dots. MLflow's parameters are final, so on a reopened run those already
        there stay, and one that has changed becomes the tag `changed.<key>`."""
        from mlflow.entities import Param

        flat = {_name(key): str(value) for key, value in flatten(params).items()}
        present = self.client.get_run(run_id).data.params
        fresh = [Param(key, value) for key, value in flat.items() if key not in present]
        for start in range(0, len(fresh), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=fresh[start : start + PARAMS_PER_BATCH])
        for key, value in flat.items():
            if key in present and present[key] != value:
                self.client.set_tag(run_id, f"changed.{key}", value)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log finite numbers at one step; `acc@0.5` becomes `acc_at_0.5` (MLflow's names know no @)."""
        now = _now()
        self.log_points(run_id, [(key, step, value, now) for key, value in metrics.items()])

    def log_points(self, run_id: str, points: Sequence[tuple[str, int, Any, int]]) -> int:
        """Log `(name, step, value, milliseconds since 1970)`; values that are no finite numbers are passed over.

        MLflow keeps one of two equal points, so a second sending doubles nothing. Returns how many went.
        """
        from mlflow.entities import Metric

        metrics = [Metric(_name(key), float(v), at, step) for key, step, v, at in points if _is_number(v)]
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
        return len(metrics)

    def log_curve(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Log rows `{step, loss, …}`; steps the run already has are left out, so a replay doubles nothing.

        Rows without a whole `step` (a trainer's summaries) and values that are no finite numbers are passed over.
        Returns how many points are new.
        """
        logged: dict[str, set[int]] = {}
        fresh: list[tuple[str, int, float, int]] = []
        now = _now()
        for row in rows:
            step = row.get("step")
            if not isinstance(step, int):
                continue
            for key, value in row.items():
                if key == "step" or not _is_number(value):
                    continue
                name = _name(key)
                if name not in logged:
                    logged[name] = {m.step for m in self.client.get_metric_history(run_id, name)}
                if step not in logged[name]:
                    logged[name].add(step)
                    fresh.append((name, step, value, now))
        return self.log_points(run_id, fresh)

    def log_dataset(self, run_id: str, path: Path, digest: str, context: str = "training") -> None:
        """Record which bytes a run read: a directory or file and its hash (DVC's md5 or a manifest's fingerprint)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        shown = _relative(path, self.project)
        dataset = Dataset(shown, digest[:DIGEST_LENGTH], "local", json.dumps({"uri": shown}))
        tags = {"mlflow.data.context": context, "dvc.md5": digest, "path": shown}
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(*tag) for tag in tags.items()])])

    def log_artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a directory with all it holds, into the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder or path.name)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def log_table(self, run_id: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows as a table that MLflow's pages show; nested values as JSON."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        plain = {
            key: [json.dumps(v) if isinstance(v := row.get(key), dict | list) else v for row in rows] for key in columns
        }
        if plain:
            self.client.log_table(run_id, plain, f"tables/{name}.json")

    def compare_address(self, run_ids: Sequence[str]) -> str:
        """The address of MLflow's page that puts runs side by side: parameters, metrics, and plots of them.

        For a SQLite store it is where `geozero stack up` or `mlflow ui` serve it by default.
        """
        experiments = sorted({str(self.client.get_run(run).info.experiment_id) for run in run_ids})
        runs, within = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), experiments))
        return f"{self._pages()}/#/compare-runs?runs={runs}&experiments={within}"

    def address(self, run_id: str) -> str:
        """The address of a run's page in MLflow."""
        return f"{self._pages()}/#/experiments/{self.client.get_run(run_id).info.experiment_id}/runs/{run_id}"

    def register_checkpoint(
        self, run_id: str, path: Path, name: str, step: int = 0, params: Mapping[str, Any] | None = None
    ) -> str:
        """Make a checkpoint known as a logged model whose weights stay where they are; returns its id, the same id
        for the same path of the same run."""
        from mlflow.entities import LoggedModelOutput

        shown = _relative(path, self.project)
        run = self.client.get_run(run_id)
        for output in run.outputs.model_outputs if run.outputs else []:
            if self.client.get_logged_model(output.model_id).tags.get("path") == shown:
                return str(output.model_id)
        model = self.client.create_logged_model(
            run.info.experiment_id,
            name=re.sub(r"[^\w\-]", "-", name),  # a model's name takes no . / : %
            source_run_id=run_id,
            tags={"path": shown, "mlflow.model.isExternal": "true"},
            params={_name(key): str(value) for key, value in flatten(params or {}).items()},
            model_type="checkpoint",
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
        return str(model.model_id)

    def headline(self, parent: str, scores: Mapping[str, float]) -> None:
        """Log the scores that stand for the whole pipeline run on its parent, where the runs table shows them."""
        self.log_metrics(parent, scores)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.client.set_tag(run_id, _name(key), value)

    def finish(self, run_id: str, status: Status = "FINISHED", at: int | None = None) -> None:
        """End a run; `at` in milliseconds since 1970, now if left out."""
        self.client.set_terminated(run_id, status, at)

    def kill(self, parent: str, at: int | None = None) -> None:
        """Mark a pipeline run as killed, with those of its stages that still count as running."""
        experiment = self.client.get_run(parent).info.experiment_id
        running = f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'"
        for run in [*self.client.search_runs([experiment], running), self.client.get_run(parent)]:
            if run.info.status == "RUNNING":
                self.finish(run.info.run_id, "KILLED", at)

    def _pages(self) -> str:
        """The address of MLflow's pages: the server's, or where the checkout's stack serves those of a SQLite store."""
        if self.store.startswith("http"):
            return self.store.rstrip("/")
        try:
            plan = json.loads((self.project / STACK).read_text())["plan"]
            stack = f"http://{str(plan['host']).replace('0.0.0.0', '127.0.0.1')}:{plan['mlflow_port']}"
        except (OSError, ValueError, KeyError, TypeError):
            stack = LOCAL_UI
        return os.environ.get(PAGES, stack)

    def _find(self, run_id: str) -> Run | None:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None  # the store was deleted, or is another one

    def _remembered(self, run_dir: Path) -> Run | None:
        path = run_dir / RUN_ID_FILE
        return self._find(path.read_text().strip()) if path.exists() else None

    def _experiment(self) -> str:
        return _experiment_id(self.store, self.experiment, str((self.project / "mlartifacts").resolve()))

    def _create(self, name: str, tags: Mapping[str, str], at: int | None = None) -> str:
        experiment = self._experiment()
        named = {_name(key): value for key, value in tags.items()}
        return str(self.client.create_run(experiment, at, named, name).info.run_id)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one level, keys joined with dots; an empty mapping stays as `{}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@lru_cache(maxsize=8)
def _client(store: str) -> MlflowClient:
    for key in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        os.environ.setdefault(key, QUIET_AND_OFFLINE[key])
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
    for name in ("alembic", "mlflow.store.db.utils"):  # a new SQLite store would report each of its migrations
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    try:
        return MlflowClient(tracking_uri=store)
    except Exception as error:
        raise _unreachable(store, error) from error


@lru_cache(maxsize=64)
def _experiment_id(store: str, name: str, artifacts: str) -> str:
    """The experiment's id, made if need be. MLflow's own default for artifacts is the current directory."""
    from mlflow.exceptions import MlflowException

    client = _client(store)
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                location = Path(artifacts).as_uri() if store.startswith("sqlite:") else None
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another process was first
                found = client.get_experiment_by_name(name)
    except Exception as error:
        raise _unreachable(store, error) from error
    if found is None or found.lifecycle_stage == "deleted":
        raise InputError(f"experiment '{name}' was deleted", store, "restore it in MLflow, or name another one")
    return str(found.experiment_id)


def _unreachable(store: str, error: Exception) -> InputError:
    mend = "start it with `geozero stack up`, or set tracking.uri" if store.startswith("http") else "set tracking.uri"
    said = str(error)
    refused = _REFUSED.search(said)  # the system's own words, in the midst of three libraries' retries
    reason = refused[1] if refused else said.splitlines()[0][:200]
    return InputError(f"the tracking store can't be opened: {reason}", store, mend)


def _now() -> int:
    return int(time.time() * 1000)


def _name(key: str) -> str:
    return _NOT_IN_A_NAME.sub("_", key.replace("@", "_at_"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _relative(path: Path, project: Path) -> str:
    """The path from the project's directory where it lies inside, so that runs on two machines can be compared."""
    path, root = path.resolve(), project.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
