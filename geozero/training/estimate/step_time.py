"""How long a step takes on GPUs: sampling, the passes without gradients, the update, and the host's part.

Arithmetic goes by the data sheet's speed, times a share; beside it every layer of every pass takes a fixed time, which
is why small micro-batches and small models use so little of a GPU. The constants are fitted to published runs;
`python -m benchmarks.published_steps` compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from geozero.training.estimate.model_size import ModelSize

PEAK_SHARE = 0.35  # of the data sheet's FLOP/s, in the large matrix products of training
DECODE_PEAK_SHARE = 0.4  # … and of a decoding step
BANDWIDTH_SHARE = 0.6  # of the data sheet's bytes/s, in a decoding step
LAYER_SECONDS = 0.002  # per layer and pass beside the arithmetic: kernels are started one by one
GATHER_SECONDS = 0.004  # … and where weights are sharded (ZeRO-3, FSDP), they are gathered from the other GPUs
DECODE_SECONDS = 0.005  # per decoding step, beside arithmetic and memory
IMAGE_SECONDS = 0.12  # to decode, resize and encode an image on the host, for sampling and training together
PCIE = 25e9  # bytes/s between GPU and host
LONGEST = 3.0  # the longest completion of a step against the mean
SPREAD = 0.5  # standard deviation of completion lengths against their mean
UPDATE_PASSES = 3  # forward, recomputed forward and backward take the fixed time once each


@dataclass(frozen=True)
class Gpus:
    """What works on a step.

    Attributes:
        n: of all nodes.
        tflops: of one, dense bfloat16, by its data sheet.
        bandwidth: of one's memory, in GB/s, by its data sheet.
        sharded: whether the weights are gathered layer by layer (ZeRO-3, FSDP).
        mfu: measured share of `tflops`, counting 6 FLOP per parameter and token of the update; None: estimated.
        per_engine: GPUs that one vLLM is spread over.
        sample_tokens: measured tokens/s that one samples; None: estimated.
    """

    n: int
    tflops: float
    bandwidth: float
    sharded: bool = False
    mfu: float | None = None
    per_engine: int = 1
    sample_tokens: float | None = None


@dataclass(frozen=True)
class Batch:
    """What a step works on; lengths in tokens.

    Attributes:
        sequences: over all GPUs, each with its prompt.
        images: images prepared on the hosts.
        group: sequences of one prompt, which vLLM reads once.
        completion: mean length.
        cap: most tokens of a completion.
        micro: sequences per update pass and GPU.
        micro_forward: sequences per pass without gradients; None: as `micro`.
        update: passes' worth of arithmetic in the update: 3 where all weights learn, 2 with LoRA, 1 more where
            activations are recomputed.
        forwards: passes without gradients (the reference, the policy that sampled).
        rounds: sequences that each round of sampling asks for, in shares of `sequences`; `resample` adds rounds.
        padded_to: length that every sequence is padded to; None: the longest of its micro-batch.
    """

    sequences: int
    prompt: float
    completion: float
    cap: float
    micro: int
    images: float = 0.0
    group: int = 1
    micro_forward: int | None = None
    update: float = 4.0
    forwards: float = 0.0
    rounds: tuple[float, ...] = ()
    padded_to: float | None = None


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by part, and the update's share of the GPUs' speed (6 FLOP per parameter and token)."""

    sampling: float
    forwards: float
    update: float
    host: float
    mfu: float

    @property
    def total(self) -> float:
        return self.sampling + self.forwards + self.update + self.host


def step_time(shape: ModelSize, batch: Batch, gpus: Gpus, moved: float = 0.0) -> StepTime:
    """Estimate a step.

    Args:
        moved: bytes per GPU that go to the host and back in a step.
    """
    tokens = batch.sequences * (batch.prompt + batch.completion) / gpus.n
    flop = 2.0 * shape.parameters * tokens

    def passes(n: float, micro: int, latencies: float) -> float:
        """Seconds of `n` passes' worth of arithmetic over the batch, in micro-batches."""
        length = batch.padded_to or batch.prompt + batch.completion * padding(micro)
        padded = flop * length / (batch.prompt + batch.completion)
        if gpus.mfu is not None:  # measured over the update, whose 3 passes' worth it counts
            return padded * n / max(batch.update, 3.0) * 3.0 / (gpus.mfu * gpus.tflops * 1e12)
        starts = batch.sequences / gpus.n / micro * shape.layers * latencies
        layer = LAYER_SECONDS + (GATHER_SECONDS if gpus.sharded else 0.0)
        return padded * n / (PEAK_SHARE * gpus.tflops * 1e12) + starts * layer

    update = passes(batch.update, batch.micro, UPDATE_PASSES)
    return StepTime(
        sampling=sum(sampling_time(shape, batch, gpus, share) for share in batch.rounds),
        forwards=passes(batch.forwards, batch.micro_forward or batch.micro, batch.forwards),
        update=update,
        host=2 * moved / PCIE + batch.images / gpus.n * IMAGE_SECONDS,
        mfu=3.0 * flop / update / (gpus.tflops * 1e12),
    )


def sampling_time(shape: ModelSize, batch: Batch, gpus: Gpus, share: float = 1.0) -> float:
    """Seconds in which vLLM reads a share of the prompts and writes their completions, until the longest one ends."""
    n = batch.sequences * share
    if n == 0:
        return 0.0
    if gpus.sample_tokens is not None:
        return n * batch.completion / (gpus.sample_tokens * gpus.n)
    running = max(1.0, n * gpus.per_engine / gpus.n)
    weights = 2.0 * shape.parameters / gpus.per_engine
    context = batch.prompt + batch.completion / 2

    def decode(sequences: float) -> float:
        read = (weights + sequences * context * shape.cache_bytes / gpus.per_engine) / (gpus.bandwidth * 1e9)
        return read / BANDWIDTH_SHARE + sequences * weights / (DECODE_PEAK_SHARE * gpus.tflops * 1e12) + DECODE_SECONDS

    prompts = n / batch.group * batch.prompt / gpus.n
    reading = prompts * 2.0 * shape.parameters / (PEAK_SHARE * gpus.tflops * 1e12)
    longest = max(batch.completion, min(batch.cap, LONGEST * batch.completion))
    return reading + batch.completion * decode(running) + (longest - batch.completion) * decode(max(1.0, running / 8))


def padding(micro: int) -> float:
    """Mean length of the longest of `micro` completions against the mean completion: Blom's approximation for normal
    lengths."""
    return 1.0 if micro == 1 else 1.0 + SPREAD * NormalDist().inv_cdf((micro - 0.375) / (micro + 0.25))
