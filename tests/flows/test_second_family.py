"""The whole line with a base model of another family: Qwen2.5-VL with pixel boxes, by vLLM where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flows_checkout import checkout, python
from smallest_pipeline import smallest
from tiny_random import build

from geozero.engines.vllm_inprocess import built_for_cpu

pytestmark = pytest.mark.long
TIME = 1500.0  # seconds; two quiet cores take a fifth of it


@pytest.mark.timeout(2 * TIME)
def test_a_model_of_another_family_goes_the_whole_way(tmp_path: Path) -> None:
    params = smallest()
    params["model"] |= {
        "path": "models/tiny-qwen2.5-vl",
        "model_type": "qwen2_5_vl",
        "template": "qwen2_5_vl",
        "boxes": "pixels",
    }
    # enough for it to end its answers, some of which are right: an answer that the token limit cut off is never easy
    params["filter"] |= {"steps": 60, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 3.0e-3}
    params["sampling"]["engine"] = "auto"
    params["a2grpo"]["vllm"] = "colocate" if built_for_cpu() else "off"
    path = checkout(tmp_path / "checkout", params)
    # patches of 14 pixels, so that an image of 96 × 96 is resized and its boxes are not those that the model sees
    build(path / "models/tiny-qwen2.5-vl", family="qwen2_5_vl", patch_size=14, pixels=(3_136, 200_704))
    done = python(path, "flows.pipeline", timeout=TIME)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for stage in ("filter-0", "sft", "a2grpo"):
        (run,) = path.glob(f"runs/{stage}-*")
        assert (run / "DONE").is_file()
        assert json.loads((run / "model/config.json").read_text())["model_type"] == "qwen2_5_vl"
        log = "\n".join(file.read_text() for file in run.glob("*.log"))
        assert log and "shared image encoding is off" not in log
    (fingerprint,) = path.glob("data/difficulty/*/_fingerprint.json")
    assert json.loads(fingerprint.read_text())["boxes"] == "pixels"
    (sft,) = path.glob("runs/sft-*")
    assert json.loads((sft / "stage.json").read_text())["rows"]["n"] > 10
    steps = [json.loads(line) for line in (sft / "metrics.jsonl").read_text().splitlines()]
    assert all(step["grad_norm"] > 0 for step in steps if "loss" in step)
    scores = json.loads((path / "reports/data/scores.json").read_text())
    assert {row["model"] for row in scores} == {"base", "sft", "a2grpo"}
    assert {row["task"] for row in scores} == {"scene_cls", "vqa", "caption", "grounding"}
