"""What a stage is made of: the parameters, data and base model that tell it from another stage."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from geozero.corpus import Corpus
from geozero.engines import checkpoint as models
from geozero.params import Params
from geozero.sample import Sample, fold_of
from geozero.training import arguments
from geozero.training.data import Replay, Rows, swift_rows

METHOD_VERSION = 1  # raise it when the same parameters and data would now train another model
ROWS = "rows.jsonl"
NOT_TRAINING = {"a2grpo": {"min_well_formed", "min_mixed_groups"}}  # bounds of the gate, not of the training


@dataclass(frozen=True)
class Recipe:
    """What tells one stage from another."""

    name: str
    kind: Literal["sft", "grpo"]
    section: Literal["filter", "sft", "a2grpo"]
    params: Params
    corpus: Path
    base: Path
    out_root: Path
    fold: int | None = None
    replay: tuple[Replay, ...] = ()

    @property
    def settings(self) -> Any:
        return getattr(self.params, self.section)

    def identity(self) -> dict[str, Any]:
        """What the fingerprint covers: everything that can change the model, and no path."""
        settings = self.settings.model_dump(exclude=NOT_TRAINING.get(self.section, set()))
        return {
            "method_version": METHOD_VERSION,
            "kind": self.kind,
            "settings": settings,
            "model": self.params.model.model_dump(exclude={"path"}),
            "seed": self.params.seed,
            "corpus": Corpus(self.corpus).digest,
            "base": models.content_hash(self.base),
            "fold": self.fold,
            "replay": digest([asdict(r) | {"image": r.image.rpartition("#")[2]} for r in self.replay]),
        }

    def write_rows(self, out: Path) -> Rows:
        corpus, boxes = Corpus(self.corpus), self.params.model.boxes
        if self.kind == "grpo":
            return swift_rows(corpus, "tagged", boxes, out)
        share = self.settings.replay_share if self.section == "sft" else 0.0
        return swift_rows(corpus, "direct", boxes, out, keep=self._keep, replay=self.replay, replay_share=share)

    def _keep(self, sample: Sample) -> bool:
        folds = self.params.filter.folds
        return self.fold is None or folds == 1 or fold_of(sample.image_key, folds) != self.fold

    def arguments(self, directory: Path) -> dict[str, Any]:
        rows = directory / ROWS
        if self.kind == "grpo":
            return arguments.grpo(self.params, rows, self.base, directory)
        return arguments.sft(self.params, self.settings, rows, self.base, directory)


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
