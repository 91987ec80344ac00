"""The 2B profile's own path with a model of its real widths: SFT with LoRA, A²GRPO with vLLM, export, predict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from geozero.engines.vllm_inprocess import built_for_cpu

pytestmark = pytest.mark.long
TIME = 2400.0  # seconds; two quiet cores take less than half of it


@pytest.mark.timeout(TIME)
@pytest.mark.skipif(not built_for_cpu(), reason="no vLLM for CPUs is installed")
def test_the_profile_goes_its_whole_way_with_real_widths(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "benchmarks.real_shape", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIME)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    (run,) = out.glob("runs/a2grpo-*")
    log = (run / "train.log").read_text()
    assert (run / "DONE").is_file() and "Traceback" not in log and "shared image encoding is off" not in log
    assert (out / "models/exported/model.safetensors").is_file()
