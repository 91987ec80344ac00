"""A vision tower that encodes equal images once: the completions of a GRPO group stand side by side with one image."""

from __future__ import annotations

import logging
from typing import Any

import torch

log = logging.getLogger(__name__)


class ImageDedupHook:
    """Hooks on a vision tower called with `(patches, grid_thw=…)`: a run of equal images is encoded once.

    Output and gradient are as if each image had been encoded.
    """

    KNOWN = frozenset({"grid_thw", "return_dict", "cache_position", "text_position_ids"})

    def __init__(self, tower: torch.nn.Module) -> None:
        self._owners: list[int] | None = None  # for each image, the index of its encoded one; None: nothing is shared
        self._patches: list[int] = []  # of each encoded image
        self._warned = False
        tower.register_forward_pre_hook(self._before, with_kwargs=True)
        tower.register_forward_hook(self._after)

    def _before(self, tower: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._owners = None
        given = {name for name, value in kwargs.items() if value is not None and value is not False}
        if len(args) != 1 or "grid_thw" not in given or not given <= self.KNOWN:
            if not self._warned:
                log.warning("shared image encoding is off for a call with %s", ", ".join(sorted(given)) or "no grid")
                self._warned = True
            return None
        grid = kwargs["grid_thw"]
        patches = grid.prod(-1).tolist()
        images = args[0].split(patches)
        kept: list[int] = []
        owners = []
        for i, image in enumerate(images):
            if not kept or not torch.equal(grid[i], grid[kept[-1]]) or not torch.equal(image, images[kept[-1]]):
                kept.append(i)
            owners.append(len(kept) - 1)
        if len(kept) == len(images):
            return None
        self._owners, self._patches = owners, [patches[i] for i in kept]
        return (torch.cat([images[i] for i in kept]),), {**kwargs, "grid_thw": grid[kept]}

    def _after(self, tower: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._owners is None:
            return None
        if isinstance(output, dict):  # transformers' ModelOutput
            for name in list(output):
                output[name] = self._expand(output[name])
            return output
        return self._expand(output)

    def _expand(self, value: Any) -> Any:
        """The output for all images from that of the encoded ones."""
        if isinstance(value, list | tuple):
            return type(value)(self._expand(v) for v in value)
        if not isinstance(value, torch.Tensor) or self._owners is None:
            return value
        merged = sum(self._patches) // value.shape[0]  # patches that became one token
        pieces = value.split([n // merged for n in self._patches])
        return torch.cat([pieces[owner] for owner in self._owners])
