"""Sampling that sees its images under DeepSpeed, where ms-swift's forward of Qwen3-VL loses them.

Under DeepSpeed ms-swift exchanges the model's forward, so that a batch without images touches the vision tower all
the same. Since transformers 5 `generate` encodes images before its first step and hands them on as
`mm_encoder_outputs`; the exchanged forward does not know these: nothing fails, and every answer is blind (ms-swift
4.6.0, transformers 5.19). Losses and log-probabilities, which hand on pixels, are right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def restore_generate_forward(model: torch.nn.Module) -> None:
    """Let a Qwen3-VL sample with its own forward; another model, and its training, are left as they are."""
    for module in model.modules():
        name = type(module).__name__
        if name.startswith("Qwen3VL") and hasattr(module, "origin_forward"):
            module.forward = _by_purpose(module.origin_forward, module.forward)


def _by_purpose(own: Callable[..., Any], exchanged: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        samples = kwargs.get("past_key_values") is not None or kwargs.get("mm_encoder_outputs") is not None
        return (own if samples else exchanged)(*args, **kwargs)

    return forward
