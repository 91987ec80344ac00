"""Two faults of ms-swift 4.6.0 (transformers 5.19) around sampling, corrected on the model that trains.

Sampling that sees its images under DeepSpeed: there ms-swift replaces the forward of some models, so that a batch
without images uses the vision tower all the same. Since transformers 5 `generate` encodes images before its first step
and passes them on as `mm_encoder_outputs`; the new forward does not know these: nothing fails, and every answer is
blind. Losses and log-probabilities, which pass pixels, are right.

A frozen base that stays frozen: to hand LoRA's weights to vLLM, ms-swift merges the adapter into the base and
subtracts it again. In bfloat16 each round trip rounds, so the base drifts, and the reference with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def restore_generate_forward(model: torch.nn.Module) -> None:
    """Let a model whose forward ms-swift has replaced sample with its own; its training is left as it is."""
    for module in model.modules():
        if hasattr(module, "origin_forward"):
            module.forward = _by_purpose(module.origin_forward, module.forward)


def _by_purpose(own: Callable[..., Any], replaced: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        samples = kwargs.get("past_key_values") is not None or kwargs.get("mm_encoder_outputs") is not None
        return (own if samples else replaced)(*args, **kwargs)

    return forward


def restore_base_on_unmerge(model: Any) -> None:
    """Let a LoRA model that was merged get its frozen base weights back to the bit; others are left as they are.

    A copy of what the adapter covers stays in host memory, made before the first merge. Under ZeRO-3 nothing is
    kept: what is merged there is a gathered copy that is thrown away.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    if not isinstance(model, PeftModel):
        return
    merge, unmerge = model.merge_adapter, model.unmerge_adapter
    kept: dict[torch.nn.Parameter, torch.Tensor] = {}

    def merge_adapter(*args: Any, **kwargs: Any) -> None:
        for module in model.modules():
            for weight in module.get_base_layer().parameters() if isinstance(module, LoraLayer) else ():
                if weight not in kept and not weight.requires_grad and not hasattr(weight, "ds_id"):
                    copy = weight.detach().to("cpu", copy=True)
                    kept[weight] = copy.pin_memory() if weight.is_cuda else copy
        merge(*args, **kwargs)

    def unmerge_adapter(*args: Any, **kwargs: Any) -> None:
        unmerge(*args, **kwargs)
        for weight, copy in kept.items():
            weight.data.copy_(copy)

    model.merge_adapter, model.unmerge_adapter = merge_adapter, unmerge_adapter
