"""params.yaml as typed, validated settings. Each field says what it is; [ours] marks what the paper leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from geozero.common import unique_yaml
from geozero.common.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0)]
Scenes = dict[Literal["aid", "rsvqa_lr", "rsicd", "dior_rsvg"], Count]  # of each set that is rendered


class Mark(Enum):
    """What else is to be known of a parameter, said at its field; no other list repeats it."""

    NOT_TRAINING = "another value trains the same model, so no fingerprint covers it"
    NOT_SPEED = "another value takes the same time per step"
    LATER = "added after the first release: at its default no fingerprint covers it, so that finished runs keep theirs"


@dataclass(frozen=True)
class Argument:
    """The parameter is passed to the trainer by name.

    Attributes:
        names: ms-swift's names for it; none: the field's own name.
        of_method: A²GRPO's trainer defines it, ms-swift does not.
    """

    names: tuple[str, ...] = ()
    of_method: bool = False


def swift(*names: str) -> Argument:
    """A field that ms-swift knows, by these names or by its own."""
    return Argument(names)


METHOD = Argument(of_method=True)


@dataclass(frozen=True)
class Removed:
    """A parameter of an earlier version: the value that a file may still give, and what takes its place."""

    default: Any
    instead: str


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    removed: ClassVar[Mapping[str, Removed]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_removed(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name, old in cls.removed.items():
            if values.get(name, old.default) != old.default:
                raise PydanticCustomError("removed", "{name}|{instead}", {"name": name, "instead": old.instead})
        return {name: value for name, value in values.items() if name not in cls.removed}

    @classmethod
    def marked(cls, mark: Mark) -> set[str]:
        """The fields that carry the mark."""
        return {name for name, field in cls.model_fields.items() if mark in field.metadata}

    def arguments(self, of_method: bool = False) -> dict[str, Any]:
        """The trainer's arguments that are fields of this section, under the trainer's names.

        Args:
            of_method: also those that only A²GRPO's trainer has.
        """
        return {
            argument: getattr(self, name)
            for name, field in type(self).model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Argument) and mark.of_method <= of_method
            for argument in mark.names or (name,)
        }

    def identity(self) -> dict[str, Any]:
        """What a fingerprint covers of this section, in the form that the runs of earlier versions have."""
        fields = type(self).model_fields
        unchanged = {name for name in self.marked(Mark.LATER) if getattr(self, name) == fields[name].default}
        values = self.model_dump(exclude=self.marked(Mark.NOT_TRAINING) | unchanged)
        return values | {name: old.default for name, old in self.removed.items()}


class Suite(Section):
    """The suite of the rendered world: questions of each type in each split, whose answers take several steps."""

    train: Count = 400
    val: Count = 100
    test: Count = 400  # each test split


class Toy(Section):
    """The rendered world of the demo; other profiles leave it out."""

    size: Annotated[int, Field(ge=96, le=256)] = 96  # side of a scene in pixels
    train: Scenes = {"aid": 700, "rsvqa_lr": 300, "rsicd": 300, "dior_rsvg": 300}
    val: Scenes = {"aid": 64, "rsvqa_lr": 40, "rsicd": 64, "dior_rsvg": 64}
    test: Scenes = {"aid": 280, "rsvqa_lr": 100, "rsicd": 260, "dior_rsvg": 150}  # each test split
    suite: Suite | None = None  # {}: its defaults; then `data` may name toy_suite_vqa, toy_suite_vg and their `_hard`

    @model_validator(mode="after")
    def _same_sets(self) -> Toy:
        if not self.train.keys() == self.val.keys() == self.test.keys():
            raise ValueError("train, val and test have to name the same sets")
        return self


Name = Annotated[str, Field(pattern=r"^\w+$")]


class Place(Section):
    """Where one data set lies, and how it is read."""

    path: str  # its tree, a directory that holds it, or an archive of it
    source: Name | None = None  # whose adapter reads it, such as `coco`; None: the data set of this name
    options: dict[str, str | bool | int | float] = {}  # of the adapter, as `geozero ingest --set` takes them
    follow: list[str] = []  # directories into which symbolic links may lead
    eval_only: bool = False

    @property
    def settings(self) -> list[str]:
        """The options as `NAME=VALUE`."""
        return [f"{name}={value}" for name, value in self.options.items()]


SAMPLES, CORPORA = "data/samples", "data/corpus"  # in a checkout


class Data(Section):
    """Which data sets the data stages ingest, and from where (dvc.yaml reads these)."""

    root: str  # directory that holds the distributed trees or archives
    sources: list[Name]  # ingested from `root`: training and evaluation
    optional: list[Name] = []  # as `sources`, but passed over, and said so, while they are not there
    eval_root: str
    eval_only: list[Name] = []  # ingested from `eval_root`: evaluation alone
    samples: list[Name] = []  # shards in git, under data/samples
    paths: dict[Name, Place] = {}  # data sets with a path of their own, by name; their own data, too

    @model_validator(mode="after")
    def _named_once(self) -> Data:
        names = [*self.sources, *self.optional, *self.eval_only, *self.samples, *self.paths]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' is named twice")
        return self

    @property
    def trained(self) -> list[str]:
        """The data sets that are trained on."""
        own = (name for name, place in self.paths.items() if not place.eval_only)
        return [*self.sources, *self.optional, *self.samples, *own]

    @property
    def searched(self) -> dict[str, str]:
        """The data sets that are looked for in a root, with that root."""
        return {
            **dict.fromkeys((*self.sources, *self.optional), self.root),
            **dict.fromkeys(self.eval_only, self.eval_root),
        }

    @property
    def places(self) -> dict[str, Place]:
        """Every data set by name, with where it lies or is looked for."""
        samples = dict.fromkeys(self.samples, SAMPLES)
        return {name: Place(path=root) for name, root in {**self.searched, **samples}.items()} | self.paths


class Model(Section):
    """The base model: Qwen3-VL-8B-Instruct in production, the tiny Qwen3-VL in the demo."""

    path: Annotated[str, Mark.NOT_TRAINING]  # the fingerprint covers the content there
    model_type: Annotated[str, swift()] = "qwen3_vl"  # ms-swift's name
    template: Annotated[str, swift()] = "qwen3_vl"  # ms-swift's name; `geozero_` before it is an older name of the same
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], swift("torch_dtype")] = "bfloat16"
    max_pixels: Annotated[Count, swift()] = 1024 * 1024  # an image is scaled down to at most this many pixels
    # … and up to at least this many. None: the minimum of the checkpoint's own image processor (65,536 for Qwen3-VL,
    # 3,136 for Qwen2.5-VL), or a quarter of max_pixels if that is less
    min_pixels: Annotated[Count | None, Mark.LATER] = None
    max_length: Annotated[Count, swift()] = 4096  # tokens of prompt and completion
    # what the coordinates in its answers mean
    boxes: Annotated[Literal["norm1000", "pixels", "resized28", "norm100", "norm1", "norm1024"], METHOD] = "norm1000"

    @model_validator(mode="after")
    def _limits_apart(self) -> Model:
        if self.min_pixels is not None and 4 * self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels has to be at most a quarter of max_pixels")
        return self


class Lora(Section):
    """The adapter that a stage with `tuner: lora` trains [ours]; it is merged into the base at the end."""

    rank: Annotated[Count, swift("lora_rank")] = 16
    alpha: Annotated[Positive, swift("lora_alpha")] = 32
    dropout: Annotated[Share, swift("lora_dropout")] = 0.05  # SFT only: A²GRPO's ratio needs one policy, not two
    # module names; `all-linear` leaves out what is frozen
    targets: Annotated[list[str], swift("target_modules")] = ["all-linear"]


LearningRate = Annotated[Positive, swift(), Mark.NOT_SPEED]
FreezeVit = Annotated[bool, swift("freeze_vit", "freeze_aligner")]


class OptimizationConfig(Section):
    """What every trained stage has."""

    steps: Annotated[Count, swift("max_steps"), Mark.NOT_SPEED]
    micro_batch_size: Count  # samples (A²GRPO: completions) per forward pass and device
    learning_rate: LearningRate
    warmup_ratio: Annotated[Share, swift(), Mark.NOT_SPEED] = 0.05
    tuner: Annotated[Literal["full", "lora"], swift("tuner_type")] = "full"
    lora: Lora = Lora()
    freeze_vit: FreezeVit = False
    extra: dict[str, Any] = {}  # further ms-swift arguments, passed as they are; they have the last word


class SupervisedConfig(OptimizationConfig):
    """What stages with a supervised loss have."""

    batch_size: Count  # samples per step over all devices
    # [ours] whether a step's samples are sorted by length, so that forward passes hold less padding; the order of
    # samples is then fixed by the seed, and each epoch has the same
    group_by_length: Annotated[bool, Mark.LATER] = False


class Filter(SupervisedConfig):
    """The data filtering model, trained on GeoZero-Raw in direct mode (METHOD, Data)."""

    folds: Annotated[int, Field(ge=1, le=10)] = 2  # [ours] 1 is the paper's simple form


class Adaptive(Section):
    """Samples that are already decided get no further answers [ours]; the rule is in
    geozero/difficulty/adaptive/stopping_rule.py."""

    error: Annotated[float, Field(gt=0, lt=1)] = 0.02  # bound on the expected share of changed decisions
    first: Count = 1  # least answers a sample
    pilot: Annotated[float, Field(gt=0, le=1)] = 0.04  # share that gets all K: the rule is learned and checked on it


class Sampling(Section):
    """Difficulty: K answers a sample in direct mode [ours]."""

    engine: Literal["auto", "vllm", "transformers", "server"] = "auto"
    # OpenAI-compatible servers (engine: server): those that hold every model, or model → its own, such as
    # {fold-0: [...], fold-1: [...], a2grpo: [...]}; none: a vLLM server is started and ended
    urls: list[str] | dict[str, list[str]] = []
    # the name of a served model that is taken for ours though nothing proves it, or model → name
    trust_server_model: str | dict[str, str] | None = None
    concurrency: Count | None = None  # completions in progress per server; None: as many as make it answer faster
    k: Annotated[int, Field(ge=1, le=1024)] = 8
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 256
    chunk: Count = 256  # answers a kill can cost; in a long job 2 % of it, at most 4,096
    memory: Share = 0.9  # share of GPU memory that vLLM may take
    # processes of this machine that share the work, each with a GPU of its own where there are any; auto (0): one a GPU
    workers: Annotated[Number, BeforeValidator(lambda value: 0 if value == "auto" else value)] = 1
    adaptive: Adaptive | None = None  # {}: its defaults
    timeout: Positive = 1800.0  # seconds after which an engine that owes answers and gives none is started again
    restarts: Annotated[int, Field(ge=0, le=100)] = 3  # in a row, without an answer in between
    recycle: Count | None = None  # requests after which the engine is started anew, against growing memory


class Select(Section):
    """Thresholds on the pass rate p, all [ours]."""

    easy: Share = 0.75  # p at least this → GeoZero-Instruct
    hard: Share = 0.5  # 0 < p at most this → GeoZero-Hard, learnable
    unsolved_share: Share = 0.3  # most of GeoZero-Hard that p = 0 may make up
    # a caption succeeds above the median reward of its source. balanced: where many rewards equal it, they succeed too
    # if that brings the share of successes closer to a half; median: never
    captions: Annotated[Literal["balanced", "median"], Mark.LATER] = "balanced"
    instruct_size: Count | None = None  # None: all that qualify
    hard_size: Count | None = None


class Sft(SupervisedConfig):
    """SFT on GeoZero-Instruct, direct answers."""

    # [ours] share of the base model's own descriptions, to keep the format
    replay_share: Annotated[Share, Mark.NOT_SPEED] = 0.0


class Bound(Section):
    """What a watched metric may not cross on average over `guards.window` steps; no limit: it is not watched."""

    limit: NotNegative | None = None
    action: Literal["warn", "stop"] = "warn"  # say so once, or end the training with its checkpoints kept


class Guards(Section):
    """Signs that A²GRPO collapses, all bounds [ours]; docs/training.md says where they come from."""

    window: Count = 8  # steps averaged; nothing is judged before there are so many
    thought_words: Bound = Bound(limit=2)  # below: the thoughts die out
    distinct: Bound = Bound(limit=0.1)  # below: share of distinct word trigrams in a step's thoughts
    well_formed: Bound = Bound(limit=0.5, action="stop")  # below: the answer format is lost
    truncated: Bound = Bound(limit=0.5)  # above: share of completions cut off at max_completion_tokens
    answer_kl: Bound = Bound(limit=1.0)  # above: nats an answer token away from the reference
    entropy: Bound = Bound()  # below: nats a token; a limit makes the trainer compute it, at some cost a step


class A2grpo(OptimizationConfig):
    """A²GRPO on GeoZero-Hard; docs/method.md gives each symbol."""

    group_size: Annotated[int, Field(ge=2), swift("num_generations")] = 8  # G
    prompts_per_step: Count = 8  # completions per step = this × group_size
    micro_batch_size: Count = 8
    learning_rate: LearningRate = 1e-6
    freeze_vit: FreezeVit = True
    temperature: Annotated[Positive, swift()] = 1.0
    max_completion_tokens: Annotated[Count, swift("max_completion_length")] = 512
    beta: Annotated[NotNegative, swift()] = 0.04  # [ours] weight of the answer-anchored KL
    thinking_weight: Annotated[NotNegative, METHOD] = 0.5  # [ours] λ
    # [ours] form of S_t, by its name in geozero/training/grpo/thinking_scores.py
    thinking_score: Annotated[str, METHOD, Mark.LATER] = "product"
    # [ours] gdpo: each reward is normalised by itself, as in GDPO (for ablations)
    reward_scaling: Annotated[Literal["group", "gdpo"], METHOD, Mark.LATER, Mark.NOT_SPEED] = "group"
    # [ours] whether a count that is nearly right earns part of R_a: 1 − |answer − truth| / max(truth, 1)
    graded_counts: Annotated[bool, METHOD, Mark.LATER] = False
    gate_k: Annotated[Positive, METHOD] = 10.0  # [ours]
    gate_tau: Annotated[Share, METHOD] = 0.5  # [ours]
    # [ours] the other forms than `curve` are for ablations
    gate: Annotated[Literal["curve", "sigmoid", "open", "step"], METHOD] = "curve"
    kl_tokens: Annotated[Literal["answer", "all"], METHOD] = "answer"  # all: stock GRPO's constraint, for ablations
    thought_words: Annotated[Count, METHOD] = 40  # [ours] L0
    thought_words_max: Annotated[Count, METHOD] = 200  # [ours] L_max
    uniform_groups: Annotated[Literal["skip", "keep"], METHOD] = "skip"  # [ours] zero-std groups
    resample: Annotated[Number, METHOD] = 0  # [ours] times per step that zero-std groups may be replaced by new prompts
    # [ours] by the filtering model's pass rate; pools: each step draws from pools by the latest mean answer reward
    order: Annotated[Literal["shuffled", "easy_first", "hard_first", "pools"], Mark.NOT_SPEED] = "shuffled"
    # [ours] `order: pools`: shares of a step's prompts from the easy and the hard pool; the rest is medium
    pool_easy: Annotated[Share, METHOD, Mark.LATER, Mark.NOT_SPEED] = 0.1
    pool_hard: Annotated[Share, METHOD, Mark.LATER, Mark.NOT_SPEED] = 0.2
    # [ours] which checkpoint becomes the model; best: by answer reward on val
    keep: Annotated[Literal["last", "best"], Mark.NOT_SPEED] = "last"
    # validation questions at each checkpoint, one answer each (`keep: best` only)
    val_prompts: Annotated[Count, Mark.NOT_SPEED] = 256
    probes: Annotated[Number, Mark.NOT_TRAINING] = 0  # val questions answered on the way, to see how thoughts change
    # … at the start, after every so many steps, and at the end
    probe_steps: Annotated[Count, METHOD, Mark.NOT_TRAINING] = 20
    guards: Annotated[Guards, Mark.NOT_TRAINING, Mark.NOT_SPEED] = Guards()
    vllm: Annotated[Literal["off", "colocate", "server"], BeforeValidator(lambda v: "off" if v is False else v)] = "off"
    vllm_memory: Annotated[Share, Mark.NOT_TRAINING] = 0.5  # colocate: share of a GPU's memory while it samples
    vllm_tensor_parallel: Annotated[Count, Mark.NOT_TRAINING] = 1  # colocate: GPUs that one vLLM engine is spread over
    # colocate: what vLLM gives up while the trainer works: 0 nothing, 1 its cache, its weights go to the host, 2 both.
    # None: 0 where the GPU holds all at once by the estimate, else 1
    sleep_level: Annotated[Literal[0, 1, 2] | None, Mark.NOT_TRAINING] = None
    # colocate: whether the trainer's weights and optimiser go to the host while vLLM samples. None: where they must
    offload: Annotated[bool | None, Mark.NOT_TRAINING] = None
    # server: where `--dry-run`'s second command listens
    vllm_server: Annotated[str, Mark.NOT_TRAINING] = "127.0.0.1:8000"
    # what the preflight before RL requires, measured on val
    min_well_formed: Annotated[Share, Mark.NOT_TRAINING, Mark.NOT_SPEED] = 0.8
    min_mixed_groups: Annotated[Share, Mark.NOT_TRAINING, Mark.NOT_SPEED] = 0.3

    @model_validator(mode="after")
    def _pools_fit(self) -> A2grpo:
        if self.order == "pools" and self.resample:
            raise ValueError("order: pools chooses prompts by difficulty, so resample has to be 0")
        if self.pool_easy + self.pool_hard > 1:
            raise ValueError("pool_easy and pool_hard are shares of one whole: their sum is at most 1")
        return self

    @property
    def server_address(self) -> tuple[str, int]:
        """Host and port of `vllm_server`.

        Raises:
            InputError: it is not HOST:PORT.
        """
        host, _, port = self.vllm_server.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(f"'{self.vllm_server}' is not host:port", "a2grpo.vllm_server", "such as 127.0.0.1:8000")
        return host, int(port)

    removed = {"support": Removed("none", "thinking_score"), "diversity": Removed("wanted", "thinking_score")}


class Hardware(Section):
    """What trains. Nothing here changes what is learned, but for rounding, so no fingerprint covers it."""

    gpus: Count | None = None  # of one node; None: NPROC_PER_NODE, else all that are visible, else the CPU
    nodes: Count = 1  # each starts the same command with NODE_RANK, MASTER_ADDR and, if need be, MASTER_PORT set
    deepspeed: str | None = None  # zero0, zero1, zero2, zero3, zero2_offload, zero3_offload, or a JSON file
    gradient_checkpointing: bool | None = None  # None: on GPUs; trades time for memory
    attention: Annotated[Literal["sdpa", "eager", "flash_attn"], swift("attn_impl")] = "sdpa"
    loader_workers: Number | None = None  # None: 4 on GPUs, 0 on the CPU
    stall_minutes: Positive = 60  # without a step, after which a training is taken for hung, dumped and started again
    restarts: Number = 2  # times in a row that a hung training is started again without getting any further
    leave_seconds: Positive = 600  # what a training may take to write its checkpoint after SIGTERM
    gpu_memory: Positive = 80  # GB of one GPU (10⁹ bytes)
    host_memory: Positive | None = None  # GB of one node; None: this machine's
    # the rest is for --dry-run's hours alone, by the GPU's data sheet or measured
    gpu_tflops: Annotated[Positive, Mark.NOT_SPEED] = 989  # dense bfloat16, without sparsity: 989 of an H100
    gpu_bandwidth: Annotated[Positive, Mark.NOT_SPEED] = 3350  # GB/s of its memory
    # TFLOP/s that one GPU reaches in the update, as measured. None: estimated, about 0.15 of an H100's for an 8B
    train_tflops: Annotated[Positive | None, Mark.NOT_SPEED] = None
    sample_tokens: Annotated[Positive | None, Mark.NOT_SPEED] = None  # tokens/s that one GPU samples. None: estimated


class Evaluation(Section):
    max_tokens: Count = 512
    limit: Count | None = None  # samples a benchmark; None: all
    gallery: Count = 48  # held-out samples shown on the page
    forced: Count | None = None  # samples a benchmark that must also be answered without a thought; None: none
    swapped: Count | None = None  # samples a benchmark that must also be answered after another sample's thought


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"  # relative to params.yaml; the variable MLFLOW_TRACKING_URI replaces this default
    experiment: str = "geozero"


class Params(Section):
    """One profile, whole."""

    profile: str
    seed: int = 7
    smoke: bool = False  # train on 50 samples for a few steps, all else alike: does the path work on this machine?
    toy: Toy | None = None
    data: Data
    model: Model
    filter: Filter
    sampling: Sampling
    select: Select
    sft: Sft
    a2grpo: A2grpo
    hardware: Hardware = Hardware()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @property
    def engine_options(self) -> dict[str, Any]:
        """Keyword arguments of `geozero.engines.open_engine` for a model trained here."""
        model = self.model.model_dump(exclude={"path", "boxes"}, exclude_none=True)
        concurrency = self.sampling.concurrency
        server = {} if concurrency is None else {"concurrency": concurrency}
        return {"name": self.sampling.engine, "memory": self.sampling.memory, **server, **model}


def checkout_of(file: Path) -> Path:
    """The checkout that a parameter file lies in (profiles/ are in it, too); outside of one, its directory."""
    file = file.absolute()  # a link stays: what it stands beside counts, not what it points to
    return next((path for path in file.parents if (path / "dvc.yaml").is_file()), file.parent)


def load(path: Path | str) -> Params:
    """Read and validate a params.yaml.

    Raises:
        InputError: missing, not YAML, an unknown key, a value out of range; the first fault is named.
    """
    path = Path(path)
    try:
        values = unique_yaml.safe_load(path.read_text())
    except OSError:
        raise InputError("no such parameter file", str(path), "give --params, or run in a checkout") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"not YAML: {error.problem}{where}", str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not YAML: {error}", str(path)) from None
    if not isinstance(values, dict):
        raise InputError("it holds no parameters", str(path), "write `name: value` lines; profiles/ holds examples")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise InputError(_fault(error.errors()[0]), str(path), "correct it; profiles/ holds examples") from None


def _fault(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown parameter '{key}'"
    if detail["type"] == "removed":
        name, _, instead = detail["msg"].partition("|")
        return f"parameter '{key}.{name}' was removed: delete the line; '{key}.{instead}' takes its place"
    if detail["type"] == "missing":
        return f"parameter '{key}' is missing"
    return f"parameter '{key}': {detail['msg']}, not {repr(detail['input'])[:80]}"
