"""What a task owns: its question, the answer a model should write, the reward of what it did write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from geozero.corpus.sample import Sample, TaskName, stable_choice
from geozero.tasks.boxes import Convention
from geozero.tasks.text import Mode, read_answer

# METHOD: the paper's system prompt "Type1"; it makes a completion `thought <answer>answer</answer>`.
SYSTEM_PROMPT = (
    "When answering, first describe your reasoning or visual observations in natural language, "
    "and then provide the final answer enclosed in <answer></answer>."
)


class Task(ABC):
    """One task. `templates` are phrasings of its question with `{text}` and `{classes}` to be filled in."""

    name: ClassVar[TaskName]
    tag: ClassVar[str]  # how the official release marks it, e.g. `[vqa]`
    templates: ClassVar[tuple[str, ...]]
    headline: ClassVar[str]  # the strict metric that stands for the task in summaries

    def question(self, sample_id: str, text: str = "", classes: Sequence[str] = ()) -> str:
        """The user's text. The phrasing goes by the stable hash of the id, so it never depends on order."""
        template = stable_choice(self.templates, sample_id, salt="template")
        return str(template).format(text=text.strip(), classes=", ".join(classes))

    @abstractmethod
    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        """The completion in direct mode that SFT teaches."""

    @abstractmethod
    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        """R_a in [0, 1] of an answer already taken out of its completion (METHOD, A²GRPO 1)."""

    def reward(self, completion: str, sample: Sample, mode: Mode, boxes: Convention = "norm1000") -> float:
        """R_a of a completion: 0 where it holds no readable answer, no substring matching anywhere."""
        answer = read_answer(completion, mode)
        return 0.0 if answer is None else self.answer_reward(answer, sample, boxes)

    def succeeds(self, reward: float) -> bool | None:
        """Whether an answer with this reward is right; None where the task knows no right or wrong (captions)."""
        return reward >= 1.0


def messages(sample: Sample, mode: Mode) -> list[dict[str, str]]:
    """The chat turns before the model's: in tagged mode the system prompt first; `<image>` marks the image."""
    turns = [{"role": "user", "content": f"<image>{sample.question}"}]
    return [{"role": "system", "content": SYSTEM_PROMPT}, *turns] if mode == "tagged" else turns
