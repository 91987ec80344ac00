"""The ms-swift template `geozero_qwen3_vl`: Qwen3-VL's, with the image tokens read from the processor."""

from __future__ import annotations

from typing import Any

TEMPLATE = "geozero_qwen3_vl"

_registered: list[str] = []


def register() -> str:
    """Make the template known to ms-swift in this process and return its name; a second call does nothing.

    ms-swift's own template has the image tokens of Qwen's vocabulary written into it (151655, 151656); a model
    with another vocabulary needs its own.
    """
    if _registered:
        return TEMPLATE
    from geozero.common import process

    process.prepare()
    from swift.template import register_template
    from swift.template.templates.qwen import Qwen3VLTemplate, QwenTemplateMeta

    class GeoZeroQwen3VLTemplate(Qwen3VLTemplate):  # type: ignore[misc]
        def init_processor(self, processor: Any) -> None:
            self.placeholder_tokens = list(Qwen3VLTemplate.placeholder_tokens)  # ms-swift appends ids to a class's list
            super().init_processor(processor)
            if processor is not None:
                self.image_token_id = processor.image_token_id
                self.video_token_id = processor.video_token_id

    register_template(
        QwenTemplateMeta(
            TEMPLATE, template_cls=GeoZeroQwen3VLTemplate, default_system=None, thinking_prefix="<think>\n"
        )
    )
    _registered.append(TEMPLATE)
    return TEMPLATE
