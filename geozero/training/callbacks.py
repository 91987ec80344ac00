"""What the trainer does on SIGTERM: finish the step, write a checkpoint, leave with code 0."""

from __future__ import annotations

import signal
from typing import Any

import torch
from transformers import TrainerCallback


class Leave(TrainerCallback):  # type: ignore[misc]
    """Until the first step begins, SIGTERM ends the process at once, as ever: there is nothing to save."""

    def __init__(self, args: Any = None, trainer: Any = None) -> None:
        self.asked = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, self._ask)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._anyone(args.device):
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def _anyone(self, device: torch.device) -> bool:
        """Whether any process was asked: all have to leave after the same step, or the others would wait for ever."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.asked
        flag = torch.tensor([int(self.asked)], device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def register() -> None:
    """Make the callback known to ms-swift in this process."""
    from swift.callbacks import callbacks_map

    from geozero.training.arguments import CALLBACK

    callbacks_map[CALLBACK] = Leave
