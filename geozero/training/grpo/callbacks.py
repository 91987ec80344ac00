"""What the trainer does between steps: save and end on SIGTERM, end unsaved on NaN, answer fixed questions."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from geozero.training.grpo import probe_log


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Ends the training with a checkpoint on SIGTERM, and without one on NaN, which would push older ones out.

    Until the first step begins, SIGTERM ends the process at once as usual: there is nothing to save.
    """

    def __init__(self, args: Any = None, trainer: Any = None) -> None:
        self.terminated = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        terminated = self.terminated
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # All processes have to end after the same step, or the others would wait for ever.
            flag = torch.tensor([int(terminated)], device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            terminated = bool(flag.item())
        if terminated:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        # All processes log the same loss and norm. In float16 a norm may overflow: that step is left out.
        watched = [logs.get("loss"), None if args.fp16 else logs.get("grad_norm")]
        if any(value is not None and not math.isfinite(value) for value in watched):
            control.should_evaluate = control.should_save = False
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_sigterm(self, number: int, frame: Any) -> None:
        self.terminated = True


class ProbeCallback(TrainerCallback):  # type: ignore[misc]
    """Logs the model's answers to fixed questions: at the start, after every `every` steps and at the end.

    Every process generates, because under ZeRO-3 and in vLLM they only work together; the first one writes.

    Args:
        generate: greedy completions of rows.
        rows: the questions, one JSON object per line, as the training's own.
    """

    def __init__(self, generate: Callable[[list[dict[str, Any]]], list[str]], rows: Path, every: int) -> None:
        self.generate, self.every, self.run = generate, every, rows.parent
        with rows.open(encoding="utf-8") as lines:  # not splitlines, which also cuts at marks that a question may hold
            self.rows = [json.loads(line) for line in lines]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._log_answers(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._log_answers(state)

    def _log_answers(self, state: Any) -> None:
        texts = self.generate(deepcopy(self.rows))
        if state.is_world_process_zero:
            probe_log.append(self.run, state.global_step, [row["sample"] for row in self.rows], texts)


def register() -> None:
    """Make the callback known to ms-swift in this process."""
    from swift.callbacks import callbacks_map

    from geozero.training.arguments import CALLBACK

    callbacks_map[CALLBACK] = CheckpointCallback
