"""What distinguishes a stage from another: parameters, data and base model; and the rows that it trains on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from geozero.common.errors import InputError
from geozero.common.redaction import redacted
from geozero.corpus.sample import Sample, fold_of
from geozero.corpus.store import Corpus, file_hash
from geozero.engines import checkpoint as models
from geozero.params import Mark, Params
from geozero.training.dataset import Readable, Replay, Rows, probe_rows, prompt_rows, swift_rows
from geozero.training.grpo import curriculum

STAGE = "stage.json"
METHOD_VERSION = 1  # raise it when the same parameters and data would now train another model
ROWS, VAL_ROWS, PROBE_ROWS = "rows.jsonl", "val-rows.jsonl", "probe-rows.jsonl"
SMOKE_SAMPLES, SMOKE_STEPS = 50, 4

Log = Callable[[str], None]


@dataclass(frozen=True)
class StageSpec:
    """One stage: its name, the section of the parameters that trains it, its data and its base model."""

    name: str
    section: Literal["filter", "sft", "a2grpo"]
    params: Params
    corpus: Path
    base: Path
    out_root: Path
    fold: int | None = None
    replay: tuple[Replay, ...] = ()
    val: tuple[Path, ...] = ()  # corpora whose val split selects the checkpoint

    @property
    def kind(self) -> Literal["sft", "grpo"]:
        """ms-swift's word for how it trains."""
        return "grpo" if self.section == "a2grpo" else "sft"

    @cached_property
    def settings(self) -> Any:
        """The section's parameters; a smoke run does a few steps of them."""
        settings = getattr(self.params, self.section)
        if not self.params.smoke:
            return settings
        return settings.model_copy(update={"steps": min(settings.steps, SMOKE_STEPS)})

    @property
    def validates(self) -> bool:
        """Whether val selects the checkpoint."""
        return self.kind == "grpo" and self.settings.keep == "best"

    @property
    def probes(self) -> int:
        """How many val questions are answered on the way."""
        return int(self.settings.probes) if self.kind == "grpo" and self.val else 0

    @property
    def order(self) -> Literal["shuffled", "easy_first", "hard_first", "pools"]:
        """The order of the samples."""
        return self.settings.order if self.kind == "grpo" else "shuffled"

    @property
    def batch_size(self) -> int:
        """Samples (A²GRPO: prompts) per step over all devices."""
        return int(self.settings.prompts_per_step if self.kind == "grpo" else self.settings.batch_size)

    @property
    def limit(self) -> int | None:
        """Most samples that are trained on; None: all."""
        return max(SMOKE_SAMPLES, self.batch_size) if self.params.smoke else None

    def identity(self) -> dict[str, Any]:
        """What the fingerprint covers: everything that can change the model, and no path."""
        # Version 1 drew whole batches; runs without resampling are the same in both, and keep their fingerprints.
        drawing = {"resampling": 2} if self.kind == "grpo" and self.settings.resample else {}
        return {
            **drawing,
            "method_version": METHOD_VERSION,
            "kind": self.kind,
            "settings": self.settings.identity(),
            "model": self.params.model.identity(),
            "seed": self.params.seed,
            "corpus": Corpus(self.corpus).digest,
            "limit": self.limit,
            "val": [Corpus(path).digest for path in self.val] if self.validates else None,
            "base": models.content_hash(self.base),
            "fold": self.fold,
            "replay": digest([asdict(r) | {"image": r.image.rpartition("#")[2]} for r in self.replay]),
            "pass_rates": None if self.order == "shuffled" else file_hash(curriculum.rates_file(self.corpus)),
        }

    def write_rows(self, out: Path) -> Rows:
        """Write what ms-swift reads: `out`, and beside it the validation prompts and probes where they are required.

        Raises:
            InputError: there are too few samples, or none.
        """
        corpus, boxes, batch_size, probes = Corpus(self.corpus), self.params.model.boxes, self.batch_size, self.probes
        readable = Readable.by(self.base, self.params.model)
        val = [Corpus(path) for path in self.val]
        if self.validates:
            prompt_rows(val, boxes, out.with_name(VAL_ROWS), self.settings.val_prompts, readable)
        if probes:
            probe_rows(val, boxes, out.with_name(PROBE_ROWS), probes, readable)
        write = partial(swift_rows, corpus, boxes=boxes, out=out, choose=self._choose, readable=readable)
        if self.kind == "sft":
            share = self.settings.replay_share if self.section == "sft" else 0.0
            steps_of = batch_size if self.settings.group_by_length else None
            sort = partial(write, sort_steps_of=steps_of, seed=self.params.seed)
            return sort(mode="direct", replay=self.replay, replay_share=share)
        rows = write(mode="tagged")
        if rows.n < batch_size:
            what = f"{rows.n} samples are fewer than the {batch_size} prompts of one step"
            raise InputError(what, str(self.corpus), "select more, or lower a2grpo.prompts_per_step")
        return rows

    def _choose(self, samples: Iterable[Sample]) -> Iterable[Sample]:
        folds = self.params.filter.folds
        if self.fold is not None and folds > 1:
            samples = (sample for sample in samples if fold_of(sample.image_key, folds) != self.fold)
        if self.limit is not None:
            samples = curriculum.some(samples, self.limit)
        if self.order == "shuffled" or self.order == "pools":
            return samples
        rates = curriculum.read_rates(curriculum.rates_file(self.corpus))
        n = self.settings.steps * self.batch_size
        return curriculum.ordered(samples, rates, self.order, n, spare=n * self.settings.resample)

    def record(self, rows: Rows, command: Sequence[str]) -> dict[str, Any]:
        """What `stage.json` says as the training begins."""
        identity = self.identity()
        return {
            **identity,
            "settings": redacted(self.settings.model_dump(exclude=self.settings.marked(Mark.NOT_TRAINING))),
            "corpus": str(self.corpus),
            "base": str(self.base),
            "corpus_digest": identity["corpus"],
            "base_hash": identity["base"],
            "rows": {"n": rows.n, "rejected": dict(rows.rejected)},
            "hardware": self.params.hardware.model_dump(),
            "command": list(command),
            "retries": [],
        }


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
