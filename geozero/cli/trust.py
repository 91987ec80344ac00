"""The option of every command that opens a model: may its checkpoint run code of its own?"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from geozero.common.process import TRUST_CHECKPOINT


def _trust(yes: bool) -> bool:
    if yes:
        os.environ[TRUST_CHECKPOINT] = "1"  # engines and trainers run in processes of their own, which inherit it
    return yes


TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        callback=_trust,
        help="Let the checkpoint run its own Python (auto_map, .py, pickled weights): only if you trust its author.",
    ),
]
