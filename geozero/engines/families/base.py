"""What a model family has to provide."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from geozero.tasks.boxes import Convention

if TYPE_CHECKING:
    import torch

MIN_PIXELS = "geozero_min_pixels"  # of ms-swift's `model_kwargs`: how a template gets `model.min_pixels`

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageLimits(ABC):
    """A checkpoint's resize rule. The trainer, the engines and the servers all fit images by it.

    Attributes:
        min_pixels: smaller images are scaled up.
        max_pixels: larger images are scaled down.
    """

    min_pixels: int
    max_pixels: int

    @abstractmethod
    def check(self, width: int, height: int) -> None:
        """Raise BadRecord where an image of this size cannot be fitted; needs no heavy import."""

    @abstractmethod
    def tokens_at(self, width: int, height: int) -> int:
        """Tokens that an image of this size takes in the language model once it is fitted."""

    @abstractmethod
    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the fitted image."""

    @abstractmethod
    def fit(self, image: Image.Image) -> Image.Image:
        """The image as the model sees it; a fitted image comes back unchanged."""

    @abstractmethod
    def tokens(self, width: int, height: int) -> int:
        """Tokens that a fitted image of this size takes in the language model."""

    @property
    @abstractmethod
    def processor_kwargs(self) -> dict[str, Any]:
        """What makes the published image processor resize like `fit` (vLLM: `mm_processor_kwargs`)."""

    @property
    def legacy(self) -> bool:
        """Whether `min_pixels` is what it was for every checkpoint before it could be chosen."""
        return False


@dataclass(frozen=True)
class Family(ABC):
    """An adapter: everything that differs between kinds of vision-language models.

    Attributes:
        model_type: in config.json and in ms-swift.
        template: ms-swift's name.
        boxes: the coordinate convention that the published model was trained with.
        vision_tower: name of transformers' class.
        count: from `text_config` and `vision_config`, the parameters of a language model layer beside its linear
            weights and two norms, and those of the vision tower; None: unknown, as are the estimates of a dry run.
    """

    model_type: str
    template: str
    boxes: Convention
    vision_tower: str
    count: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[int, int]] | None = None

    @abstractmethod
    def limits(self, path: Path, max_pixels: int, min_pixels: int | None = None) -> ImageLimits:
        """The image limits of a checkpoint: its own processor's, within `max_pixels` and, if given, `min_pixels`.

        Raises:
            InputError: no readable processor configuration, or limits that leave no room.
        """

    @abstractmethod
    def write_limits(self, path: Path, limits: ImageLimits) -> None:
        """Write the limits into the checkpoint's processor configuration."""

    @abstractmethod
    def register_template(self) -> None:
        """Teach ms-swift in this process to fit images by `limits` and to read token ids from the checkpoint."""

    @property
    def templates(self) -> tuple[str, str]:
        """Names that `model.template` may have; the second is an older name of the same."""
        return self.template, f"geozero_{self.template}"

    def dedup_images(self, model: torch.nn.Module) -> None:
        """Let the vision tower encode a run of equal images once; where it cannot, one log line says so."""
        from geozero.engines.families.image_dedup import ImageDedupHook

        towers = [module for module in model.modules() if type(module).__name__ == self.vision_tower]
        for tower in towers:
            ImageDedupHook(tower)
        if not towers:
            log.warning("shared image encoding is off: %s has no %s", type(model).__name__, self.vision_tower)
