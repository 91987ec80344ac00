"""The arms: what each trains from the common start, and what its model then answers."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from benchmarks.ablation.selections import Selection, corpus_of
from geozero import tasks
from geozero.common.atomic import write_json
from geozero.corpus.sample import Sample, Split, stable_unit
from geozero.corpus.store import Corpus
from geozero.evaluation.thinking.probe import FULL_WORDS
from geozero.inference.corpus_job import CorpusJob, records_path, run_in_child
from geozero.params import Params
from geozero.tasks.text import OPEN_TAG, Mode, is_well_formed, thought, words
from geozero.training.estimate.dry_run import COMPLETION
from geozero.training.grpo.collapse_monitor import VIOLATIONS
from geozero.training.grpo.rewards import distinct
from geozero.training.metrics import read
from geozero.training.replay import collect
from geozero.training.stage import Options, StageResult, run_a2grpo, run_sft
from geozero.workspace import Workspace

RIGHT_IOU = 0.5
REPORTED: tuple[Split, ...] = ("val", "test")
Start = Literal["sft", "terse", "mixed"]
SHORTENED: dict[Start, float] = {"terse": 1.0, "mixed": 0.75}  # share of rehearsed thoughts cut to their first sentence


@dataclass(frozen=True)
class Arm:
    """One way of going on from the start.

    Attributes:
        stage: `sft` trains on in direct mode, `a2grpo` reinforces.
        changes: parameters of the stage that differ from the profile's.
        data: what is learned from.
        modes: how its model is asked; the first one is how it was trained.
        main: one of the three that get all seeds.
    """

    what: str
    stage: Literal["sft", "a2grpo"] = "a2grpo"
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: Literal["instruct", "hard"] | Selection = "hard"
    modes: tuple[Mode, ...] = ("tagged",)
    main: bool = False


SELECTION_ARMS = ("a2grpo", "random", "middle")  # does GeoZero-Hard help?
THINKING_ARMS = (  # where thinking pays, what of the method does it, and what else would
    *("sft", "sft_hard", "grpo", "a2grpo", "kl_everywhere", "no_thinking", "no_gate", "gdpo", "dr_grpo", "length"),
    *("coverage", "hyre", "random"),
)
STOCK_GRPO = {"thinking_weight": 0.0, "kl_tokens": "all"}

ARMS: dict[str, Arm] = {
    "sft": Arm("SFT continued for as many steps", "sft", data="instruct", modes=("direct", "tagged"), main=True),
    "sft_hard": Arm("SFT continued on the hard samples", "sft", modes=("direct", "tagged")),
    "grpo": Arm("stock GRPO: R_a, KL on all tokens", changes=STOCK_GRPO, main=True),
    "a2grpo": Arm("A²GRPO", main=True),
    "no_gate": Arm("A²GRPO without gate: R_a + λ S_t", changes={"gate": "open", "uniform_groups": "keep"}),
    "no_constraint": Arm("A²GRPO without answer constraint", changes={"beta": 0.0}),
    "kl_everywhere": Arm("A²GRPO with KL on all tokens", changes={"kl_tokens": "all"}),
    "no_thinking": Arm("A²GRPO without thinking reward", changes={"thinking_weight": 0.0}),
    "plain_sigmoid": Arm("A²GRPO with a plain sigmoid gate", changes={"gate": "sigmoid", "uniform_groups": "keep"}),
    "kept": Arm("A²GRPO, all-right groups kept for their thoughts", changes={"uniform_groups": "keep"}),
    "resampled": Arm("A²GRPO, groups without a signal sampled again", changes={"resample": 2}),
    "grpo_resampled": Arm("stock GRPO, groups without a signal sampled again", changes=STOCK_GRPO | {"resample": 2}),
    "light": Arm("A²GRPO, λ = 0.1", changes={"thinking_weight": 0.1}),
    "length": Arm("A²GRPO, S_t by length alone", changes={"thinking_score": "length"}),
    "coverage": Arm("A²GRPO, S_t by coverage of what is asked", changes={"thinking_score": "coverage"}),
    "gdpo": Arm("GDPO: R_a and S_t each normalised by itself, KL on all tokens", changes={
        "reward_scaling": "gdpo", "gate": "open", "kl_tokens": "all", "uniform_groups": "keep",
    }),
    "dr_grpo": Arm("stock GRPO with Dr. GRPO's loss", changes=STOCK_GRPO | {"extra": {"loss_type": "dr_grpo"}}),
    # 0.7 R_a + 0.2 novelty, scaled; its 0.1 for the form is left out, since all arms start well formed
    "hyre": Arm("RS-HyRe-R1's reward: novelty where R_a ≥ 0.5, KL on all tokens", changes={
        "thinking_score": "novelty", "gate": "step", "thinking_weight": 2 / 7, "kl_tokens": "all",
        "uniform_groups": "keep",
    }),
    "random": Arm("A²GRPO on random samples, as many of each task as GeoZero-Hard has", data="random"),
    "middle": Arm("A²GRPO on samples of middle pass rates, as many of each task as GeoZero-Hard has", data="middle"),
}  # fmt: skip


def arm_of(name: str) -> Arm:
    """The arm of a name; `ARM@BETA` is it with another β."""
    base, _, beta = name.partition("@")
    arm = ARMS[base]
    return replace(arm, what=f"{arm.what}, β = {beta}", changes={**arm.changes, "beta": float(beta)}) if beta else arm


def with_beta(params: Params, name: str, beta: float) -> str:
    """The name of an arm with this β: its own, where that is the profile's."""
    return name if beta == params.a2grpo.beta else f"{name}@{beta:g}"


def settings_of(params: Params, arm: Arm, seed: int) -> Params:
    """The profile with an arm's changes and a seed.

    SFT takes as many steps as RL does. Guards only warn: an arm that collapses has to be seen to, not ended.
    """
    values = params.model_dump()
    values["seed"] = seed
    changes = dict(arm.changes)
    if "extra" in changes:
        changes["extra"] = values[arm.stage]["extra"] | changes["extra"]
    values[arm.stage] |= changes
    if arm.stage == "sft":
        values["sft"] |= {"steps": params.a2grpo.steps, "replay_share": 0.0}
    else:
        values["a2grpo"]["probes"] = 0
        for bound in values["a2grpo"]["guards"].values():
            if isinstance(bound, dict):
                bound["action"] = "warn"
    return Params.model_validate(values)


def start_of(workspace: Workspace, start: Start, out: Path) -> Path:
    """The model that all arms start from: the newest SFT run's, or one whose thoughts SFT made terse.

    The same SFT, but of what it rehearses each thought (`terse`) or three of four (`mixed`, by stable hash) end after
    their first sentence.
    """
    if start == "sft":
        return workspace.newest("sft")
    replay = collect(workspace.settings, workspace.base, workspace.instruct, workspace.runs)
    short = [
        replace(one, text=terse(one.text)) if stable_unit(one.text, salt=start) < SHORTENED[start] else one
        for one in replay
    ]
    return run_sft(
        workspace.settings, workspace.instruct, workspace.base, out / "runs", f"sft-{start}", replay=short
    ).model


def terse(completion: str) -> str:
    """The completion with the first sentence of its thought only."""
    said = thought(completion)
    head, stop, _ = said.partition(". ")
    return f"{head}. " * bool(stop) + completion[completion.index(OPEN_TAG) :] if stop else completion


def outcome(record: Mapping[str, Any], sample: Sample, boxes: Any) -> float:
    """How right an answer is under the strict protocol: 0 or 1, for a caption its reward."""
    found = tasks.get(sample.task).answer_reward(record["pred"], sample, boxes) if record["pred"] else 0.0
    if sample.task == "grounding":
        return float(found >= RIGHT_IOU)
    return float(found) if sample.task == "caption" else float(found >= 1.0)


def train(
    workspace: Workspace, arm_name: str, seed: int, start: Path, out: Path, **options: Unpack[Options]
) -> StageResult:
    """One arm with one seed; a finished one is reused."""
    arm = arm_of(arm_name)
    params = settings_of(workspace.settings, arm, seed)
    if arm.data in ("random", "middle") and not options.get("dry_run"):  # a plan writes nothing
        corpus = corpus_of(workspace, arm.data, out)
    else:
        corpus = workspace.instruct if arm.data == "instruct" else workspace.hard
    run = run_sft if arm.stage == "sft" else run_a2grpo
    return run(params, corpus, start, out / "runs", f"{arm_name}-{seed}", **options)


def judge(
    workspace: Workspace, arm_name: str, model: Path, out: Path, limit: int | None, splits: Sequence[Split]
) -> dict[str, Any]:
    """Answer these splits in each of the arm's modes and score each question: mode → what was found.

    What val says is for choosing, and its sources are called `val`.
    """
    there: dict[Split, list[Path]] = {"val": workspace.val_corpora, "test": workspace.corpora_with("test")}
    corpora = {split: there[split] for split in splits}
    boxes = workspace.settings.model.boxes
    for split, paths in corpora.items():
        job = CorpusJob(
            model=str(model),
            corpora=tuple(map(str, paths)),
            out=str(out / split),
            split=split,
            modes=arm_of(arm_name).modes,
            max_tokens=workspace.settings.evaluation.max_tokens,
            limit=limit,
            boxes=boxes,
            engine=workspace.engine,
        )
        run_in_child(job, out / f"answers-{split}.log")
    return {mode: _judged(corpora, mode, out, boxes) for mode in arm_of(arm_name).modes}


def _judged(corpora: Mapping[Split, list[Path]], mode: Mode, out: Path, boxes: Any) -> dict[str, Any]:
    outcomes: dict[str, dict[str, dict[str, float]]] = {}
    texts: list[str] = []
    thinking: dict[str, dict[str, bool]] = {}
    for split, path in ((split, path) for split, paths in corpora.items() for path in paths):
        samples = {s.id: s for s in Corpus(path).samples(split)}
        source = next(iter(samples.values())).source
        name = "val" if split == "val" else source
        for record in json.loads(records_path(out / split, mode, source).read_text()):
            sample = samples[record["sample"]]
            outcomes.setdefault(name, {}).setdefault(sample.task, {})[sample.id] = outcome(record, sample, boxes)
            text = record["raw_output"]
            thinking.setdefault(name, {})[sample.id] = len(words(thought(text))) >= FULL_WORDS
            if split == "test" or len(corpora) == 1:
                texts.append(text)
    if mode == "direct":
        return {"outcomes": outcomes}
    return {
        "outcomes": outcomes,
        "well_formed": sum(map(is_well_formed, texts)) / len(texts),
        "thought_words": sum(len(words(thought(text))) for text in texts) / len(texts),
        "distinct": distinct(texts),
        "thinks": sum(len(words(thought(text))) >= FULL_WORDS for text in texts) / len(texts),
        "thinking": thinking,
    }


def result_path(out: Path, arm: str, seed: int) -> Path:
    """Where the result of an arm and seed is, once it is there."""
    return out / "results" / f"{arm}-{seed}.json"


def finished(
    workspace: Workspace,
    start: Path,
    out: Path,
    limit: int | None,
    item: tuple[str, int],
    splits: Sequence[Split] = REPORTED,
) -> dict[str, Any]:
    """Train and judge an arm with a seed, unless its result is there; the result is written last.

    `sampled_tokens` is what RL sampled to learn from (without resampled groups), `seconds` the training's wall time,
    `cpu_seconds` what it took of the processors (other work does not show).
    """
    arm, seed = item
    target = result_path(out, arm, seed)
    if not target.is_file():
        begun, used = time.monotonic(), _cpu()
        result = train(workspace, arm, seed, start, out)
        seconds, cpu_seconds = time.monotonic() - begun, _cpu() - used
        answers = result.directory / "answers"
        answers.mkdir(exist_ok=True)
        modes = judge(workspace, arm, result.model, answers, limit, splits)
        curve = read(result.directory / "metrics.jsonl")
        found = {
            "arm": arm,
            "seed": seed,
            "seconds": None if result.reused else seconds,  # trained before a stop: how long is not known
            "cpu_seconds": None if result.reused else cpu_seconds,
            "answer_kl": _mean(curve, "answer_kl"),
            "guarded": sum(VIOLATIONS in row for row in curve),
            "silent": _mean(curve, "dropped_groups"),
            "rounds": _mean(curve, "resampled"),
            "sampled_tokens": _sampled(curve, settings_of(workspace.settings, arm_of(arm), seed)),
            "answer_rewards": [row["answer_reward"] for row in curve if "answer_reward" in row],
            "run": result.directory.name,
            "modes": modes,
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, found)
        print(f"{arm}, seed {seed}: {seconds:.0f} s", flush=True)
    read_back: dict[str, Any] = json.loads(target.read_text())
    return read_back


def _mean(curve: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean over the steps that logged it."""
    values = [row[name] for row in curve if name in row]
    return float(np.mean(values)) if values else None


def _sampled(curve: Sequence[Mapping[str, Any]], params: Params) -> float | None:
    """Tokens of all completions that were learned from; None for SFT, which samples none."""
    lengths = [row[COMPLETION] for row in curve if COMPLETION in row]
    return sum(lengths) * params.a2grpo.prompts_per_step * params.a2grpo.group_size if lengths else None


def _cpu() -> float:
    """Processor seconds of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
