"""params.yaml as typed, validated settings. Each field says what it is; [ours] marks what the paper leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from geozero.common.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0)]
Scenes = dict[Literal["aid", "rsvqa_lr", "rsicd", "dior_rsvg"], Count]  # of each set that is rendered


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Toy(Section):
    """The rendered world of the demo; other profiles leave it out."""

    size: Annotated[int, Field(ge=96, le=256)] = 96  # side of a scene in pixels
    train: Scenes = {"aid": 700, "rsvqa_lr": 300, "rsicd": 300, "dior_rsvg": 300}
    val: Scenes = {"aid": 64, "rsvqa_lr": 40, "rsicd": 64, "dior_rsvg": 64}
    test: Scenes = {"aid": 280, "rsvqa_lr": 100, "rsicd": 260, "dior_rsvg": 150}  # each test split

    @model_validator(mode="after")
    def _same_sets(self) -> Toy:
        if not self.train.keys() == self.val.keys() == self.test.keys():
            raise ValueError("train, val and test have to name the same sets")
        return self


class Data(Section):
    """Which sources the data stages ingest, and from where (dvc.yaml reads these)."""

    root: str  # directory that holds the distributed trees or archives
    sources: list[str]  # ingested from `root`: training and evaluation
    optional: list[str] = []  # as `sources`, but passed over, and said so, while they are not there
    eval_root: str
    eval_only: list[str] = []  # ingested from `eval_root`: evaluation alone
    samples: list[str] = []  # shards in git, under data/samples


class Model(Section):
    """The base model: Qwen3-VL-8B-Instruct in production, the tiny Qwen3-VL in the demo."""

    path: str
    model_type: str = "qwen3_vl"  # ms-swift's name
    template: str = "qwen3_vl"  # ms-swift's name; `geozero_qwen3_vl` reads the image token ids from the processor
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_pixels: Count = 1024 * 1024  # an image is scaled down to at most this many pixels
    max_length: Count = 4096  # tokens of prompt and completion
    boxes: Literal["norm1000", "pixels", "resized28", "norm100"] = "norm1000"  # what its coordinates mean


class Lora(Section):
    """The adapter that a stage with `tuner: lora` trains [ours]; it is merged into the base at the end."""

    rank: Count = 16
    alpha: Positive = 32
    dropout: Share = 0.05  # SFT alone; A²GRPO's ratio needs one policy, not two
    targets: list[str] = ["all-linear"]  # module names; `all-linear` leaves out what is frozen


class OptimizationConfig(Section):
    """What SFT-like stages share."""

    steps: Count
    batch_size: Count  # samples a step over all devices
    micro_batch_size: Count  # samples a forward pass and device
    learning_rate: Positive
    warmup_ratio: Share = 0.05
    tuner: Literal["full", "lora"] = "full"
    lora: Lora = Lora()
    freeze_vit: bool = False
    extra: dict[str, Any] = {}  # further ms-swift arguments, passed as they are


class Filter(OptimizationConfig):
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
    urls: list[str] = []  # OpenAI-compatible servers (engine: server); none: a vLLM server is started and ended
    k: Annotated[int, Field(ge=1, le=1024)] = 8
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 256
    chunk: Count = 256  # answers a kill can cost; in a long job 2 % of it, at most 4,096
    memory: Share = 0.9  # share of GPU memory that vLLM may take
    workers: Count = 1  # processes of this machine that share the work; more than one only helps on CPUs
    adaptive: Adaptive | None = None  # {}: its defaults
    timeout: Positive = 1800.0  # seconds after which an engine that owes answers and gives none is started again
    restarts: Annotated[int, Field(ge=0, le=100)] = 3  # in a row, without an answer in between
    recycle: Count | None = None  # requests after which the engine is started anew, against growing memory


class Select(Section):
    """Thresholds on the pass rate p, all [ours]."""

    easy: Share = 0.75  # p at least this → GeoZero-Instruct
    hard: Share = 0.5  # 0 < p at most this → GeoZero-Hard, learnable
    unsolved_share: Share = 0.3  # most of GeoZero-Hard that p = 0 may make up
    instruct_size: Count | None = None  # None: all that qualify
    hard_size: Count | None = None


class Sft(OptimizationConfig):
    """SFT on GeoZero-Instruct, direct answers."""

    replay_share: Share = 0.0  # [ours] share of the base model's own descriptions, to keep the format


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


class A2grpo(Section):
    """A²GRPO on GeoZero-Hard; docs/method.md gives each symbol."""

    steps: Count
    group_size: Annotated[int, Field(ge=2)] = 8  # G
    prompts_per_step: Count = 8  # completions a step = this × group_size
    micro_batch_size: Count = 8  # completions a forward pass and device
    learning_rate: Positive = 1e-6
    warmup_ratio: Share = 0.05
    tuner: Literal["full", "lora"] = "full"
    lora: Lora = Lora()
    freeze_vit: bool = True
    temperature: Positive = 1.0
    max_completion_tokens: Count = 512
    beta: NotNegative = 0.04  # [ours] weight of the answer-anchored KL
    thinking_weight: NotNegative = 0.5  # [ours] λ
    support: Literal["none", "times", "alone"] = "none"  # [ours] by the reference
    gate_k: Positive = 10.0  # [ours]
    gate_tau: Share = 0.5  # [ours]
    gate: Literal["curve", "sigmoid", "open"] = "curve"  # [ours] the other two are for ablations, see docs/training.md
    kl_tokens: Literal["answer", "all"] = "answer"  # all: stock GRPO's constraint, for ablations
    thought_words: Count = 40  # [ours] L0
    thought_words_max: Count = 200  # [ours] L_max
    diversity: Literal["wanted", "ignored", "unwanted"] = "wanted"  # [ours] of a group's thoughts, in S_t
    uniform_groups: Literal["skip", "keep"] = "skip"  # [ours]
    resample: Number = 0  # [ours] times a step may draw more prompts in place of groups without an answer signal
    order: Literal["shuffled", "easy_first", "hard_first"] = "shuffled"  # [ours] by the filtering model's pass rate
    keep: Literal["last", "best"] = "last"  # [ours] which checkpoint becomes the model; best: by answer reward on val
    val_prompts: Count = 256  # validation questions at each checkpoint, one answer each (`keep: best` alone)
    probes: Number = 0  # val questions whose answers are kept on the way, to look at how thoughts change
    probe_steps: Count = 20  # … at the start, after each so many steps, and at the end
    guards: Guards = Guards()
    vllm: Annotated[Literal["off", "colocate", "server"], BeforeValidator(lambda v: "off" if v is False else v)] = "off"
    vllm_memory: Share = 0.5  # colocate: share of a GPU's memory while it samples
    vllm_tensor_parallel: Count = 1  # colocate: GPUs that one vLLM engine is spread over
    vllm_server: str = "127.0.0.1:8000"  # server: where `--dry-run`'s second command listens
    extra: dict[str, Any] = {}
    min_well_formed: Share = 0.8  # the gate before RL starts, measured on val
    min_mixed_groups: Share = 0.3


class Hardware(Section):
    """What trains. Nothing here changes what is learned, but for rounding, so no fingerprint covers it."""

    gpus: Count | None = None  # of one node; None: NPROC_PER_NODE, else all that are visible, else the CPU
    nodes: Count = 1  # each starts the same command with NODE_RANK, MASTER_ADDR and, if need be, MASTER_PORT set
    deepspeed: str | None = None  # zero0, zero1, zero2, zero3, zero2_offload, zero3_offload, or a JSON file
    gradient_checkpointing: bool | None = None  # None: on GPUs; trades time for memory
    attention: Literal["sdpa", "eager", "flash_attn"] = "sdpa"
    loader_workers: Number | None = None  # None: 4 on GPUs, 0 on the CPU
    stall_minutes: Positive = 60  # without a step, after which a training is taken for hung, dumped and started again
    restarts: Number = 2  # times in a row that a hung training is started again without getting any further
    leave_seconds: Positive = 600  # what a training may take to write its checkpoint after SIGTERM
    gpu_memory: Positive = 80  # GB of one GPU (10⁹ bytes); this and the next two for --dry-run's estimate alone
    train_tflops: Positive = 200  # assumed: bf16 TFLOP/s that one GPU reaches in forward and backward passes
    sample_tokens: Positive = 1500  # assumed: tokens/s that one GPU samples


class Evaluation(Section):
    max_tokens: Count = 512
    limit: Count | None = None  # samples a benchmark; None: all
    gallery: Count = 48  # held-out samples shown on the page
    forced: Count | None = None  # samples a benchmark that must also be answered without a thought; None: none


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"  # relative to the directory of params.yaml
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


def load(path: Path | str) -> Params:
    """Read and validate a params.yaml.

    Raises:
        InputError: missing, not YAML, an unknown key, a value out of range; the first fault is named.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except OSError:
        raise InputError("no such parameter file", str(path), "give --params, or run in a checkout") from None
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
    if detail["type"] == "missing":
        return f"parameter '{key}' is missing"
    return f"parameter '{key}': {detail['msg']}, not {repr(detail['input'])[:80]}"
