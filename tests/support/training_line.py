"""SFT and A²GRPO through real ms-swift on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_corpus import build_corpus
from training_stage import make_params

from geozero.corpus.store import Corpus, subset
from geozero.tasks import messages
from geozero.training import stage
from geozero.training.dataset import Replay, image_uri

THOUGHTS = ("a red square", "one green shape in the dark", "blue on black", "grey and nothing else", "some colour here")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Closed questions only: their answers are what a few steps can teach."""
    data = tmp_path_factory.mktemp("data")
    whole = Corpus(build_corpus(data / "whole", n_images=24))
    subset(whole, [s for s in whole.samples(split="train") if s.task == "vqa"], data / "closed", {"made_by": "test"})
    return data / "closed"


@pytest.fixture(scope="module")
def sft_model(tiny_random: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> stage.StageResult:
    """A model that has learned the tagged format from replayed completions, and to guess: groups are mixed."""
    replay = [
        Replay(
            messages(sample, "tagged"),
            image_uri(corpus, sample.image_id),
            f"{THOUGHTS[i % 5]} <answer>{('yes', 'no')[i % 2]}</answer>",
        )
        for i, sample in enumerate(Corpus(corpus).samples())
    ]
    settings = {"steps": 30, "batch_size": 16, "micro_batch_size": 16, "learning_rate": 2e-3, "replay_share": 0.95}
    out = tmp_path_factory.mktemp("sft")
    return stage.run_sft(make_params(sft=settings), corpus, tiny_random, out, replay=replay)


RL = {"steps": 4, "prompts_per_step": 4, "micro_batch_size": 16, "max_completion_tokens": 32, "learning_rate": 1e-3}


def weights(model: Path):
    from safetensors.torch import load_file

    return load_file(model / "model.safetensors")


def apart(a: Path, b: Path) -> float:
    left, right = weights(a), weights(b)
    return max(float((left[k] - right[k]).abs().max()) for k in left)
