"""Sampling under DeepSpeed, which need not be installed for it: ms-swift only asks whether it is at work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_requests import GREEDY, LIMITS, SIZES, make_image

from geozero.engines import Request, open_engine

pytestmark = pytest.mark.slow


def answers(model: Path) -> dict[str, list[str]]:
    """Greedy answers to one question about several images: without DeepSpeed, with it, and with our mending."""
    engine: Any = open_engine("transformers", model, **LIMITS)
    from swift.model.models import qwen

    from geozero.training.grpo.patches import restore_generate_forward

    question = [{"role": "user", "content": "<image>Is a ship present in the image?\nAnswer with one word."}]
    asked = [Request(f"r{n}", question, make_image(n, *size)) for n, size in enumerate(SIZES)]

    def told() -> list[str]:
        return [completions[0].text for completions in engine.generate(asked, GREEDY)]

    found = {"alone": told()}
    qwen.is_deepspeed_enabled = lambda: True
    found["deepspeed"] = told()
    restore_generate_forward(engine._swift.model)
    found["mended"] = told()
    engine.close()
    return found


def test_a_model_that_samples_under_deepspeed_sees_its_images(tiny_random: Path) -> None:
    done = subprocess.run([sys.executable, __file__, str(tiny_random)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mended"] == found["alone"]
    assert (
        found["deepspeed"] != found["alone"]
    )  # once this fails, ms-swift sees by itself: geozero/training/grpo/patches.py may go


if __name__ == "__main__":
    print(json.dumps(answers(Path(sys.argv[1]))))
