"""Runs in MLflow, one parent per pipeline run and one child per stage: create, find and end them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geozero.common.atomic import write_text
from geozero.common.redaction import redact
from geozero.tracking.contents import Contents, plain_name

if TYPE_CHECKING:
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

RUN_ID_FILE = "mlflow_run_id"  # beside the checkpoints, so that a resumed stage reopens its run
PARENT_TAG = "mlflow.parentRunId"
REUSED_TAG = "reused."  # + a stage's name: the run that did its work


class Tracker(Contents):
    """A tracking store, its runs and their contents."""

    def open_pipeline(
        self, name: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Start the parent run of one pipeline run; returns its id.

        Args:
            params: nested as in params.yaml.
            tags: for instance `lineage.code_tags(project)`.

        Raises:
            InputError: the store cannot be opened or reached.
        """
        run_id = self._create(name, tags or {})
        self.log_params(run_id, params or {})
        return run_id

    def search(self, page: str | None = None) -> Any:
        """Runs of the experiment, the newest first: MLflow's paged list, `page` is the token of the previous page."""
        newest = ["attributes.start_time DESC"]
        return self.client.search_runs([self._experiment()], order_by=newest, page_token=page, max_results=1000)

    def find(self, tag: str, value: str) -> str | None:
        """The newest run of the experiment with this tag; None if there is none."""
        experiment = self._experiment()
        found = self.client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def reopen(self, run_id: str) -> None:
        """Continue a run that has ended."""
        self.client.update_run(run_id, status="RUNNING")

    def stages(self, parent: Run) -> list[Run]:
        """The child runs of a pipeline run, and those of the stages that it reused, by name."""
        under = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'"
        found = list(self.client.search_runs([parent.info.experiment_id], under, max_results=1000))
        known = {one.info.run_id for one in found}
        for tag, value in parent.data.tags.items():
            if tag.startswith(REUSED_TAG) and value not in known:
                reused = self.run(value)
                found += [reused] if reused is not None else []
        return sorted(found, key=lambda one: str(one.info.run_name))

    def remembered(self, run_dir: Path) -> str | None:
        """The id of the run that a stage's directory records, if the store has it."""
        known = self._remembered(run_dir)
        return str(known.info.run_id) if known else None

    def child(
        self, parent: str, stage: str, run_dir: Path, tags: Mapping[str, str] | None = None, at: int | None = None
    ) -> str:
        """The run of a stage under `parent`: the one that `run_dir` records, reopened, or else a new one.

        A reopened run moves under the new parent. Its former parent, if still marked as running, was killed
        (a run directory has one writer) and is closed as such.

        Args:
            at: when a new run began, in milliseconds since 1970; now if left out.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        known = self._remembered(run_dir)
        if known is None:
            known_as = {PARENT_TAG: parent, "stage": stage, "run_dir": run_dir.name, **(tags or {})}
            run_id = self._create(stage, known_as, at)
            write_text(run_dir / RUN_ID_FILE, run_id)
            return run_id
        run_id = str(known.info.run_id)
        former = self.run(known.data.tags.get(PARENT_TAG, parent))
        if former is not None and former.info.run_id != parent and former.info.status == "RUNNING":
            self.finish(former.info.run_id, "KILLED")
        self.reopen(run_id)
        for key, value in {PARENT_TAG: parent, **(tags or {})}.items():
            self.client.set_tag(run_id, plain_name(key), redact(value))
        return run_id

    def note_reused(self, parent: str, stage: str, path: Path) -> str | None:
        """Tag the parent with the run of a finished stage that is reused; returns that run's id."""
        run_id = self.remembered(Path(path))
        self.client.set_tag(parent, REUSED_TAG + stage, run_id or Path(path).name)
        return run_id

    def promote(self, run_id: str) -> None:
        """Make the run's model the registered model's `best`, if the rule of `model_promotion` says so."""
        from geozero.tracking.model_promotion import promote

        promote(self, self.client.get_run(run_id))

    def finish(self, run_id: str, status: Status = "FINISHED", at: int | None = None) -> None:
        """End a run; `at` in milliseconds since 1970, now if left out."""
        self.client.set_terminated(run_id, status, at)

    def kill(self, parent: str, at: int | None = None) -> None:
        """Mark a pipeline run as killed, with those of its stages that are still marked as running."""
        experiment = self.client.get_run(parent).info.experiment_id
        running = f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'"
        for run in [*self.client.search_runs([experiment], running), self.client.get_run(parent)]:
            if run.info.status == "RUNNING":
                self.finish(run.info.run_id, "KILLED", at)

    def _remembered(self, run_dir: Path) -> Run | None:
        path = run_dir / RUN_ID_FILE
        return self.run(path.read_text().strip()) if path.exists() else None

    def _create(self, name: str, tags: Mapping[str, str], at: int | None = None) -> str:
        experiment = self._experiment()
        named = {plain_name(key): redact(value) for key, value in tags.items()}
        return str(self.client.create_run(experiment, at, named, name).info.run_id)
