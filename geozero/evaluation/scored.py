"""A list of records with its scores: what every metric, interval, group and comparison is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geozero.evaluation.notes import both_protocols, cut_off_notes, two_readings
from geozero.evaluation.reasoning import reasoning
from geozero.evaluation.self_consistency import self_consistency
from geozero.evaluation.statistics import LEVEL, RESAMPLES, SEED, Clusters, cluster_ids, intervals, renumbered
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Bools, Scores, finite
from geozero.tasks import Task
from geozero.tasks.boxes import Convention
from geozero.tasks.text import is_well_formed

Protocol = Literal["strict", "official"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
MAX_GROUPS = 500  # groups of one kind that are listed; more classes than any data set of the field has


@dataclass(frozen=True)
class ScoredRecords:
    """Records of one task under one protocol. They are scored once, when `scores` is first read; groups, pairs and
    intervals index its per-record statistics. `boxes` is the convention of predicted boxes under `strict`."""

    task: Task
    records: RecordList
    protocol: Protocol = "strict"
    boxes: Convention = "norm1000"

    @cached_property
    def scores(self) -> Scores:
        """The scores of all records.

        Raises:
            InputError: the published rules stop on a record.
        """
        if self.protocol == "strict":
            return self.task.strict(self.records, self.boxes)
        return self.task.official(self.records)

    @property
    def main_metric(self) -> str:
        """The metric that stands for the task under the protocol."""
        return self.task.main_metric(self.protocol)

    @cached_property
    def _clustering(self) -> tuple[str | None, Clusters | None]:
        """What is resampled together: records about one image, else those that answer one question."""
        for name, column in (("image_path", self.records.image_paths), ("sample", self.records.samples)):
            if (clusters := cluster_ids(column)) is not None:
                return name, clusters
        return None, None

    @property
    def clusters(self) -> Clusters | None:
        """The number of each record's cluster (n,); None where every record stands alone."""
        return self._clustering[1]

    @cached_property
    def well_formed(self) -> Bools:
        """Which completions (n,) hold exactly one answer block."""
        return np.array([is_well_formed(text) for text in self.records.texts], dtype=bool) & self.records.raw

    def groupings(self) -> dict[str, NDArray[np.object_]]:
        """What records are grouped by: class or size, and the question's type; each (n,), None in no group."""
        types = np.array(self.records.question_types, dtype=object)
        return self.scores.groups | ({"question_type": types} if any(t is not None for t in types) else {})

    def result(self, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Any]:
        """Metrics, intervals, groups and everything else that `geozero evaluate` says of the records.

        Raises:
            InputError: the published rules stop on a record.
        """
        task, records, scores = self.task, self.records, self.scores
        n_raw, n_well_formed = int(records.raw.sum()), int(self.well_formed.sum())
        notes, readings, protocols = list(scores.notes), dict[str, Any](), dict[str, Any]()
        if not len(records):
            notes.append("the list is empty: there is nothing to score")
        elif self.protocol == "strict":
            readings, differing = two_readings(task, records, scores, self.well_formed, self.boxes)
            protocols, apart = both_protocols(task, records, scores)
            notes += [*cut_off_notes(records), *apart, *differing]
        result: dict[str, Any] = {
            "task": task.name,
            "protocol": self.protocol,
            "n": len(records),
            "metrics": scores.metrics(),
            "n_well_formed": n_well_formed,
            "well_formed_share": n_well_formed / n_raw if n_raw else None,
            "intervals": intervals(scores.statistics, scores.finish, self.clusters, resamples, seed),
            "interval_settings": {
                "level": LEVEL,
                "resamples": resamples,
                "seed": seed,
                "clustered_by": self._clustering[0],
            },
            "groups": self._groups(notes, resamples, seed),
            "reasoning": reasoning(task.closed, records.texts, scores.per_record.get("pred", ())),
        }
        result |= {key: value for key, value in (("readings", readings), ("protocols", protocols)) if value}
        result |= task.details(records, scores, "resized28" if self.protocol == "official" else self.boxes)
        if (sampled := self_consistency(task, records, scores, resamples, seed)) is not None:
            result["self_consistency"] = sampled
        result |= {key: value for key in ("diagnosis", "missing") if (value := getattr(scores, key))}
        return result | {"problems": records.problem_summary(), "notes": notes}

    def _groups(self, notes: list[str], resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        """n, well-formed completions, metrics and intervals by question type, class and size."""
        result: dict[str, dict[str, Any]] = {}
        for kind, names in self.groupings().items():
            known = sorted({name for name in names if name is not None})
            if len(known) > MAX_GROUPS:
                notes.append(f"{len(known)} groups by {kind}: only the first {MAX_GROUPS} are listed")
            result[kind] = {}
            for name in known[:MAX_GROUPS]:
                chosen = names == name
                statistics, clusters = self.scores.statistics[chosen], renumbered(self.clusters, chosen)
                result[kind][name] = {
                    "n": int(chosen.sum()),
                    "n_well_formed": int(self.well_formed[chosen].sum()),
                    "metrics": finite(self.scores.rates(chosen)),
                    "intervals": intervals(statistics, self.scores.finish, clusters, resamples, seed),
                }
        return result
