"""A stage killed three times at random moments against an undisturbed one: `python -m benchmarks.kills sft a2grpo`.

Run it where params.yaml, its finished data and (for a2grpo) its SFT run are. Both ways run through the stage's flow in
a checkout of their own, so that MLflow is part of it. Each kill is a `kill -9` of the flow and of all that it has
started, as a lost machine would. Prints steps, MLflow runs, the end of the curve and how far the weights are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from geozero.tracking import Tracker
from geozero.training.metrics import read
from geozero.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
KILLS = 3
LAST = 5  # steps whose mean tells where a curve ends
CURVE = {"sft": "loss", "a2grpo": "answer_reward"}


def checkout(workspace: Workspace, out: Path, stage: str, steps: int, sft_run: Path | None) -> Path:
    """A directory with links to the data and the models, and runs and MLflow of its own."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "runs").mkdir(parents=True)
    for name in ("data", "models"):
        (out / name).symlink_to(workspace.root / name)
    (out / "dvc.yaml").write_bytes((workspace.root / "dvc.yaml").read_bytes())
    if sft_run is not None:
        (out / "runs" / sft_run.name).symlink_to(sft_run)
    values: dict[str, Any] = yaml.safe_load(workspace.file.read_text())
    values[stage]["steps"] = steps
    values["tracking"] = {"uri": "sqlite:///mlflow.db", "experiment": "kills"}
    (out / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return out


def start(where: Path, stage: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"flows.{stage}"]
    if stage == "a2grpo":
        command.append(str(Workspace.open(where / "params.yaml").newest("sft")))
    with (where / "flow.log").open("ab") as log:
        return subprocess.Popen(command, cwd=where, env=environment, stdout=log, stderr=log, start_new_session=True)


def step_of(where: Path, stage: str) -> int:
    found = list((where / "runs").glob(f"{stage}-*/metrics.jsonl"))
    rows = [row for path in found if not path.parent.is_symlink() for row in read(path)]
    return max((row["step"] for row in rows), default=0)


def kill(running: subprocess.Popen[bytes]) -> None:
    """End the flow and all that descends from it at once, as a power cut would."""
    root = psutil.Process(running.pid)
    for one in [*root.children(recursive=True), root]:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    running.wait()


def run(where: Path, stage: str, moments: list[int]) -> None:
    """Run to the end, killed as soon as each of the given steps was logged.

    Raises:
        RuntimeError: the flow ended with an error, or before it could be killed.
    """
    for moment in moments:
        running = start(where, stage)
        while step_of(where, stage) < moment:
            if running.poll() is not None:
                raise RuntimeError(f"{stage} ended before step {moment}: see {where / 'flow.log'}")
            time.sleep(0.1)
        kill(running)
        print(f"{stage}: killed at step {step_of(where, stage)}", flush=True)
    if start(where, stage).wait() != 0:
        raise RuntimeError(f"{stage} failed: see {where / 'flow.log'}")


def found_in(where: Path, stage: str) -> dict[str, Any]:
    """Steps, MLflow runs of the stage, the end of the curve, and the model."""
    (directory,) = [p for p in (where / "runs").glob(f"{stage}-*") if not p.is_symlink()]
    rows = [row for row in read(directory / "metrics.jsonl") if CURVE[stage] in row]
    runs = [r for r in Tracker(experiment="kills", project=where).search() if r.data.tags.get("stage") == stage]
    (tracked,) = runs or [None]
    points = tracked.data.metrics if tracked else {}
    return {
        "steps": [row["step"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows),
        "mlflow_runs": len(runs),
        "status": tracked.info.status if tracked else None,
        "last_point": points.get(CURVE[stage]),
        "end": sum(row[CURVE[stage]] for row in rows[-LAST:]) / LAST,
        "model": directory / "model",
    }


def apart(one: Path, other: Path) -> float:
    """The largest difference of any weight."""
    from safetensors.torch import load_file

    left, right = (load_file(path / "model.safetensors") for path in (one, other))
    return max(float((left[key] - right[key]).abs().max()) for key in left)


def main() -> int:
    """Run both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stages", nargs="*", choices=[[], "sft", "a2grpo"], metavar="STAGE", help="sft, a2grpo; both, if none is named"
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    workspace = Workspace.open(options.params)
    rng = random.Random(options.seed)
    for stage in options.stages or ("sft", "a2grpo"):
        sft_run = workspace.newest("sft").parent if stage == "a2grpo" else None
        moments = sorted(rng.sample(range(1, options.steps - 1), KILLS))
        ends: dict[str, dict[str, Any]] = {}
        for way, killed_at in (("undisturbed", []), ("killed", moments)):
            where = checkout(workspace, workspace.runs / "kills" / f"{stage}-{way}", stage, options.steps, sft_run)
            run(where, stage, killed_at)
            ends[way] = found_in(where, stage)
        distance = apart(*(end.pop("model") for end in ends.values()))
        print(json.dumps({"stage": stage, "kills_after_step": moments, **ends, "weights_apart": distance}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
