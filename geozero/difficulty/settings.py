"""How difficulty is sampled: the settings that `sample` and its plan share, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.difficulty import answer_store
from geozero.difficulty.adaptive import stopping_rule
from geozero.difficulty.answer_store import Fingerprint
from geozero.engines import checkpoint
from geozero.engines.base import SamplingParams
from geozero.engines.families import default_boxes, family_for, recorded_min_pixels
from geozero.engines.serving.served_model import servers_for, trusted_name
from geozero.params import Adaptive, Params, Select
from geozero.tasks.boxes import Convention

CHUNK_SHARE = 0.02  # of the job: so much a kill may cost
MOST_CHUNK = 4096  # answers; the images of two chunks are in memory


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """See `params.Sampling` and `params.Model` for what has the same name there.

    Attributes:
        engine: which engine answers.
        k: answers a sample; a store can grow to more, never shrink.
        seed: base seed; each answer's own is a stable hash of it, the sample and the rollout.
        chunk: answers under way or not yet written, at least one sample's: what a kill can cost; in a long job 2 % of
            it, at most 4,096.
        urls: servers, for the engine `server`; or model → its servers.
        trust_server_model: a served model's name that is taken for the filtering model; or model → name.
        adaptive: ask no further about samples that are decided under `thresholds`.
        thresholds: those of the selection to come.
        timeout: seconds after which an engine that owes answers and gives none is ended and started again.
        restarts: how often in a row.
        recycle: requests after which the engine is started anew.
    """

    engine: str = "auto"
    k: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 7
    chunk: int = 256
    max_pixels: int = 1024 * 1024
    min_pixels: int | None = None
    max_length: int = 4096
    dtype: str = "auto"
    template: str | None = None
    model_type: str | None = None
    boxes: Convention = "norm1000"
    memory: float = 0.9
    urls: Sequence[str] | Mapping[str, Sequence[str]] = ()
    trust_server_model: str | Mapping[str, str] | None = None
    concurrency: int | None = None
    adaptive: Adaptive | None = None
    thresholds: Select = field(default_factory=Select)
    timeout: float = 1800.0
    restarts: int = 3
    recycle: int | None = None

    @classmethod
    def of(cls, params: Params | None, **instead: Any) -> SamplingSettings:
        """Those of a parameter file, or the defaults; what is not None in `instead` takes precedence."""
        values: dict[str, Any] = {}
        if params is not None:
            values = {name: value for name, value in params.sampling if name != "workers"}
            values |= {"seed": params.seed, "thresholds": params.select}
            family_for(params.model)  # refuses what does not fit together
            values |= {name: value for name, value in params.model if name != "path"}
        return cls(**values | {name: value for name, value in instead.items() if value is not None})

    @property
    def draws(self) -> SamplingParams:
        """How k answers to a request are drawn."""
        return SamplingParams(self.k, float(self.temperature), float(self.top_p), self.max_tokens, self.seed)

    def engine_options(self, path: Path | None = None, fold: int = 0, folds: int = 1) -> dict[str, Any]:
        """Keyword arguments of `engines.open_supervised`.

        Args:
            path: a fold's model; None: of any, with all servers.

        Raises:
            InputError: no server is named for this model.
        """
        names = ("dtype", "max_pixels", "min_pixels", "max_length", "template", "model_type", "memory")
        supervision = ("timeout", "restarts", "recycle")
        found = {name: getattr(self, name) for name in (*names, *supervision)}
        if self.concurrency is not None:
            found["concurrency"] = self.concurrency
        if path is None or self.engine != "server":
            return found | {"urls": () if isinstance(self.urls, Mapping) else tuple(self.urls)}
        trusted = trusted_name(self.trust_server_model, path, fold, folds)
        found |= {"urls": tuple(servers_for(self.urls, path, fold if folds > 1 else None))}
        return found | ({} if trusted is None else {"trust_server_model": trusted})

    def models(self, models: Sequence[Path | str]) -> tuple[list[Path], list[Fingerprint]]:
        """Directory and fingerprint of each fold's model.

        Raises:
            InputError: no model, or none that is whole; a default that does not suit it; k below 1.
        """
        if self.k < 1 or not models:
            what = "nothing to sample: it takes at least one model and one answer"
            raise InputError(what, "--k", "give --k 1 or more")
        paths = [checkpoint.resolve(model) for model in models]
        hashes = {path: checkpoint.content_hash(path) for path in set(paths)}
        if self.model_type is None and self.boxes == SamplingSettings.boxes:  # no parameter file
            for path in paths:
                if default_boxes(path) != self.boxes:
                    what = f"the model writes boxes as {default_boxes(path)}, not as {self.boxes}"
                    raise InputError(what, str(path), "say what its boxes mean: --params with model.boxes")
        prompt, draws = answer_store.prompt_form(), self.draws
        drawn = draws.temperature, draws.top_p, draws.max_tokens, draws.seed
        limits = self.max_pixels, self.max_length, self.boxes
        least = {path: recorded_min_pixels(path, self.max_pixels, self.min_pixels) for path in hashes}
        trust = self.trust_server_model if self.engine == "server" else None
        served = [trusted_name(trust, path, fold, len(paths)) for fold, path in enumerate(paths)]
        return paths, [
            Fingerprint(hashes[path], prompt, *drawn, *limits, least[path], name)
            for path, name in zip(paths, served, strict=True)
        ]

    @property
    def rule_key(self) -> str | None:
        """Key of the rule by which adaptive sampling stops; None: it is off."""
        if self.adaptive is None:
            return None
        return stopping_rule.rule_key(self.k, self.thresholds.easy, self.thresholds.hard, self.adaptive)

    def chunk_of(self, answers: int) -> int:
        """Size of a chunk in a job of so many answers."""
        return max(self.chunk, min(MOST_CHUNK, int(CHUNK_SHARE * answers)))
