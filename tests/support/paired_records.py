"""Records of two models on the same questions."""

from __future__ import annotations

import random
from typing import Any


def questions(right: float, n: int = 200, seed: int = 1, thought: str = "") -> list[dict[str, Any]]:
    """Answers of a model that is right so often; the questions are the same whatever the seed."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = ("yes", "no")[i % 2]
        text = label if rng.random() < right else ("no", "yes")[i % 2]
        text = f"{thought}<answer>{text}</answer>" if thought else text
        row = {"id": f"q{i}", "raw_output": text, "label": label, "image_path": f"{i // 4}.png"}
        rows.append(row | {"question_type": ("presence", "comp")[i % 4 // 2]})
    return rows
