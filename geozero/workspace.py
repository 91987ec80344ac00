"""A checkout with its settings: where its corpora, models, runs and reports lie."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero import params
from geozero.common.errors import InputError
from geozero.corpus.sample import Split
from geozero.corpus.store import MANIFEST, Corpus
from geozero.engines import checkpoint
from geozero.tracking import Tracker
from geozero.tracking.mlflow_store import configured_uri


@dataclass(frozen=True)
class Workspace:
    """One checkout, opened by its parameter file."""

    file: Path
    settings: params.Params = field(repr=False)

    @classmethod
    def open(cls, file: Path | str) -> Workspace:
        """Raises InputError where the parameter file is missing or wrong."""
        path = Path(file).absolute()  # a link stays: what it stands beside counts, not what it points to
        return cls(path, params.load(path))

    @property
    def root(self) -> Path:
        """The checkout that the parameter file lies in (profiles/ are in it, too); outside of one, its directory."""
        return params.checkout_of(self.file)

    @property
    def raw(self) -> Path:
        return self.root / "data/geozero-raw"

    @property
    def instruct(self) -> Path:
        return self.root / "data/geozero-instruct"

    @property
    def hard(self) -> Path:
        return self.root / "data/geozero-hard"

    @property
    def output_corpora(self) -> tuple[Path, Path, Path]:
        """The corpora that the data stages end in: GeoZero-Raw, GeoZero-Instruct, GeoZero-Hard."""
        return self.raw, self.instruct, self.hard

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def base(self) -> Path:
        """The base model: a directory of the checkout, or else a hub name."""
        path = self.root / self.settings.model.path
        return path if path.is_dir() else Path(self.settings.model.path)

    @property
    def corpora(self) -> list[Path]:
        """The ingested corpora of the data sets that the parameters name, by name."""
        named = (self.root / params.CORPORA / name for name in sorted(self.settings.data.places))
        return [path for path in named if (path / MANIFEST).is_file()]

    def corpora_with(self, split: Split) -> list[Path]:
        """The ingested corpora that hold samples of a split."""
        return [p for p in self.corpora if any(row["split"] == split for row in Corpus(p).manifest["counts"])]

    @property
    def trained_sources(self) -> list[str]:
        """The sources that are trained on, and whose val split may choose between checkpoints."""
        return self.settings.data.trained

    @property
    def val_corpora(self) -> list[Path]:
        """The corpora of the trained sources that hold val samples."""
        return [path for path in self.corpora_with("val") if path.name in self.trained_sources]

    @property
    def tracker(self) -> Tracker:
        return Tracker(configured_uri(self.settings.tracking.uri), self.settings.tracking.experiment, self.root)

    @property
    def engine(self) -> dict[str, Any]:
        """The arguments of `open_engine` besides the model."""
        urls, trust = self.settings.sampling.urls, self.settings.sampling.trust_server_model
        given = {"urls": urls, "trust_server_model": trust} if urls else {}
        return self.settings.engine_options | {name: value for name, value in given.items() if value is not None}

    def newest(self, stage: str) -> Path:
        """The model of the stage's latest finished run that began with this profile's base model.

        A smoke run's model has learned next to nothing: only another smoke run continues with it.

        Raises:
            InputError: there is none.
        """
        done = sorted(self.runs.glob(f"{stage}-*/DONE"), key=lambda p: p.stat().st_mtime, reverse=True)
        made_of = {one.parent: _record(one.parent / "stage.json") for one in done}
        whole = {run: record for run, record in made_of.items() if self.settings.smoke or record.get("limit") is None}
        run = self._begun_with_base(whole)
        if run is not None:
            return run / "model"
        other = f" (those there are smoke runs or from other base models: {len(done)})"
        others = f" from {self.settings.model.path}{other}" if done else ""
        raise InputError(
            f"no finished {stage} run{others}", str(self.runs), f"run `geozero {stage}` first, or give --model"
        )

    def _begun_with_base(self, made_of: dict[Path, dict[str, Any]]) -> Path | None:
        """The first run from the base model: by its path, or, in a checkout that was moved, by its content."""
        if not any(made_of.values()):
            return None
        try:
            base = checkpoint.resolve(self.base)
        except InputError:
            return None
        found = [run for run, record in made_of.items() if record.get("base") == str(base)]
        if not found:
            content = checkpoint.content_hash(base)
            found = [run for run, record in made_of.items() if record.get("base_hash") == content]
        return found[0] if found else None

    def log(self, name: str) -> Path:
        return self.runs / "logs" / f"{name}.log"


def _record(file: Path) -> dict[str, Any]:
    """A stage's record; empty where it cannot be read."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
