"""The contents of a run: parameters, metrics, data sets, artifacts, checkpoints, traces; every call names its run.

MLflow's active run is thread-local and Prefect runs tasks in threads, so nothing here depends on an active run. Every
call is idempotent: the outbox relies on it.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.common.redaction import redact, redacted
from geozero.tracking.mlflow_store import URI_VARIABLE, MlflowStore

PARAMS_PER_BATCH, METRICS_PER_BATCH, DIGEST_LENGTH, NAME_LENGTH = 100, 1000, 36, 250  # MLflow's limits
TRACES_PER_PAGE = 500  # a tracking server refuses more
PROBE, STEP, RUN = "probe", "step", "mlflow.sourceRun"  # tags of a trace, and the metadata that names its run
TABLES_TAG = "mlflow.loggedArtifacts"  # what MLflow's pages show as tables

_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")


class Contents(MlflowStore):
    """Writes into runs of a store; the tracker creates, finds and ends them."""

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log nested settings flat with dots. MLflow's parameters are final: on a reopened run those already there
        stay, and one that has changed becomes the tag `changed.<key>`.
        """
        from mlflow.entities import Param

        flat = {plain_name(key): str(value) for key, value in redacted(flatten(params)).items()}
        present = self.client.get_run(run_id).data.params
        fresh = [Param(key, value) for key, value in flat.items() if key not in present]
        for start in range(0, len(fresh), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=fresh[start : start + PARAMS_PER_BATCH])
        for key, value in flat.items():
            if present.get(key, value) != value:
                self.client.set_tag(run_id, f"changed.{key}", value)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at one step; `acc@0.5` becomes `acc_at_0.5` (MLflow's names allow no @)."""
        now = _now()
        self.log_points(run_id, [(key, step, value, now) for key, value in metrics.items()])

    def log_points(self, run_id: str, points: Sequence[tuple[str, int, Any, int]]) -> int:
        """Log `(name, step, value, milliseconds since 1970)`; what is no number is skipped, NaN and infinities are not.

        MLflow keeps one of two equal points. Returns how many were sent.
        """
        from mlflow.entities import Metric

        metrics = [Metric(plain_name(key), float(v), at, step) for key, step, v, at in points if _is_number(v)]
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
        return len(metrics)

    def log_curve(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Log rows `{step, loss, …}`, without the steps that the run already has. Returns how many points are new.

        Rows without an integer `step` (a trainer's summaries) and values that are no numbers are skipped.
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
                name = plain_name(key)
                if name not in logged:
                    logged[name] = {m.step for m in self.client.get_metric_history(run_id, name)}
                if step not in logged[name]:
                    logged[name].add(step)
                    fresh.append((name, step, value, now))
        return self.log_points(run_id, fresh)

    def log_rows(self, run_id: str, path: Path) -> int:
        """`log_curve` of a JSON lines file; lines that are not JSON are skipped."""
        rows = []
        for line in Path(path).read_text().splitlines():
            with suppress(ValueError):
                rows.append(json.loads(line))
        return self.log_curve(run_id, rows)

    def log_traces(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Log rows `{probe, step, inputs, outputs}` as MLflow traces of a run. Returns how many of them are new.

        Raises:
            ConnectionError: the store did not keep all of them; MLflow itself only warns.
        """
        if not rows:
            return 0
        import mlflow

        os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # a call returns once its trace is sent
        _set_tracking_uri(self.store)
        experiment = str(self.client.get_run(run_id).info.experiment_id)
        known = self._traces(experiment, run_id)
        fresh = [row for row in rows if (row["probe"], str(row["step"])) not in known]
        for row in fresh:
            span = mlflow.start_span_no_context(
                f"{row['inputs'].get('task', 'question')}, step {row['step']}",
                inputs=dict(row["inputs"]),
                experiment_id=experiment,
                tags={PROBE: row["probe"], STEP: str(row["step"])},
                metadata={RUN: run_id},
            )
            span.set_outputs(dict(row["outputs"]))
            span.end()
        kept = len(self._traces(experiment, run_id)) - len(known)
        if kept < len(fresh):
            raise ConnectionError(f"{len(fresh) - kept} of {len(fresh)} traces were not kept")
        return kept

    def _traces(self, experiment: str, run_id: str) -> set[tuple[str, str]]:
        """(probe, step) of a run's traces."""
        found, page, token = set[tuple[str, str]](), None, None
        while page is None or token:
            page = self.client.search_traces(
                locations=[experiment],
                filter_string=f"metadata.`{RUN}` = '{run_id}'",
                max_results=TRACES_PER_PAGE,
                page_token=token,
                include_spans=False,
            )
            found |= {(trace.info.tags.get(PROBE, ""), trace.info.tags.get(STEP, "")) for trace in page}
            token = page.token
        return found

    def log_dataset(self, run_id: str, path: Path, digest: str, context: str = "training") -> None:
        """Record which bytes a run read: a directory or file and its hash (DVC's md5 or a manifest's fingerprint)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        shown = self._relative(path)
        dataset = Dataset(shown, digest[:DIGEST_LENGTH], "local", json.dumps({"uri": shown}))
        tags = {"mlflow.data.context": context, "dvc.md5": digest, "path": shown}
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(*tag) for tag in tags.items()])])

    def log_artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a whole directory, into the run's artifacts."""
        path = Path(path)
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder or path.name)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def log_table(self, run_id: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows as a table that MLflow's pages show; nested values as JSON. (MLflow's own call appends to a table.)"""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if not columns:
            return
        rows = redacted(list(rows))
        file = f"tables/{name}.json"
        self.client.log_dict(
            run_id, {"columns": columns, "data": [[_cell(r.get(c)) for c in columns] for r in rows]}, file
        )
        shown = json.loads(self.client.get_run(run_id).data.tags.get(TABLES_TAG, "[]"))
        table = {"path": file, "type": "table"}
        if table not in shown:
            self.client.set_tag(run_id, TABLES_TAG, json.dumps([*shown, table]))

    def register_checkpoint(
        self, run_id: str, path: Path, name: str, step: int = 0, params: Mapping[str, Any] | None = None
    ) -> str:
        """Register a checkpoint as a logged model whose weights stay where they are; returns its id, the same for
        the same path of the same run.
        """
        from mlflow.entities import LoggedModelOutput

        shown = self._relative(path)
        run = self.client.get_run(run_id)
        for output in run.outputs.model_outputs if run.outputs else []:
            if self.client.get_logged_model(output.model_id).tags.get("path") == shown:
                return str(output.model_id)
        model = self.client.create_logged_model(
            run.info.experiment_id,
            name=re.sub(r"[^\w\-]", "-", name),  # a model's name may not contain . / : %
            source_run_id=run_id,
            tags={"path": shown, "mlflow.model.isExternal": "true"},
            params={plain_name(key): str(value) for key, value in redacted(flatten(params or {})).items()},
            model_type="checkpoint",
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
        return str(model.model_id)

    def upload_checkpoint(self, model_id: str) -> str:
        """Copy the files of a registered checkpoint into MLflow's artifacts; returns their address.

        Raises:
            InputError: the checkpoint is gone.
        """
        model = self.client.get_logged_model(model_id)
        path = self.project / model.tags["path"]  # an absolute one stays as it is
        if not path.is_dir():
            raise InputError("the run's checkpoint is gone", str(path), "train again, or promote another run")
        self.client.log_model_artifacts(model_id, str(path))
        return str(model.artifact_location)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag, under a name that MLflow accepts."""
        self.client.set_tag(run_id, plain_name(key), redact(value))

    def compare(self, run_id: str, others: Sequence[str]) -> None:
        """Tag a run with the address of the page that compares others."""
        self.set_tag(run_id, "compare", self.compare_address(others))

    def _relative(self, path: Path) -> str:
        """The path relative to the project's directory if it is inside, so that runs on two machines are comparable."""
        path, root = Path(path).resolve(), self.project.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one level, keys joined with dots; an empty mapping stays as `{}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def plain_name(key: str) -> str:
    """A name that MLflow accepts: no other characters than its own, not too long, and no path to elsewhere."""
    name = _NOT_IN_A_NAME.sub("_", key.replace("@", "_at_"))
    parts = ["_" if part in (".", "..") else part for part in name.split("/") if part]
    return "/".join(parts)[:NAME_LENGTH].rstrip("/") or "_"


def _set_tracking_uri(uri: str) -> None:
    """Point MLflow's spans to a store. MLflow sets the variable too, which users set for theirs: it stays as it was."""
    import mlflow

    before = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(URI_VARIABLE, None)
    else:
        os.environ[URI_VARIABLE] = before


def _now() -> int:
    return int(time.time() * 1000)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Any:
    """A value of a table as JSON: nested ones as text, NaN and infinities as null."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
