"""What a task owns: its question, the answer that is taught, the reward of one that was given, and its scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from geozero.common.errors import InputError
from geozero.common.lenient_json import as_text
from geozero.corpus.sample import Box, Sample, TaskName, stable_choice
from geozero.metrics.baselines import most_common
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Scores
from geozero.tasks import text
from geozero.tasks.boxes import Convention
from geozero.tasks.text import Mode, read_answer

# METHOD: the paper's system prompt "Type1"; it makes a completion `thought <answer>answer</answer>`.
SYSTEM_PROMPT = (
    "When answering, first describe your reasoning or visual observations in natural language, "
    "and then provide the final answer enclosed in <answer></answer>."
)


CUT_OFF = "cut_off"  # the problem of a completion that ended before its answer


class Task(ABC):
    """One task.

    To write one: subclass (`ClosedTask` where an answer is right or wrong word for word), set the attributes without a
    default, write the abstract methods, override what differs, and list it in `geozero/tasks/__init__.py`.
    """

    name: ClassVar[TaskName]
    title: ClassVar[str]  # on the page
    tags: ClassVar[tuple[str, ...]]  # how releases mark it, ours first, which is written as `[vqa]`
    hub_category: ClassVar[str] = "image-text-to-text"  # what the Hugging Face hub files it under
    templates: ClassVar[tuple[str, ...]]  # phrasings of its question, `{text}` and `{classes}` to be filled in
    headline: ClassVar[str]  # the strict metric that stands for the task in summaries
    official_headline: ClassVar[str | None] = None  # the official one; None: the published script has no such task
    reported: ClassVar[tuple[str, ...]] = ()  # metrics that papers report
    closed: ClassVar[bool] = False  # a right answer matches word for word: K equal wrong ones make a label suspect
    success_reward: ClassVar[float | None] = 1.0  # right from here on; None: above the median of its source (captions)
    answers_are_boxes: ClassVar[bool] = False
    answers_are_classes: ClassVar[bool] = False  # scored by class, with a confusion matrix
    many_references: ClassVar[bool] = False  # several sentences are right, and records hold them as a list
    by_question_type: ClassVar[bool] = False  # questions of several types, whose mean says little
    official_draws: ClassVar[bool] = False  # whether the published script draws its answers, or takes them greedily
    official_guesses: ClassVar[bool] = True  # whether labels can be scored as answers under the official protocol

    @property
    def tag(self) -> str:
        """How our release marks it."""
        return f"[{self.tags[0]}]"

    @property
    def asks_text(self) -> bool:
        """Whether a record needs a question or an expression of its own."""
        return "{text}" in self.templates[0]

    def main_metric(self, protocol: str) -> str:
        """The metric that stands for the task under a protocol."""
        return (protocol == "official" and self.official_headline) or self.headline

    # --- data ---------------------------------------------------------------------------------------------

    def question(self, sample_id: str, text: str = "", classes: Sequence[str] = ()) -> str:
        """The user's text. The phrasing goes by the stable hash of the id, so it never depends on order."""
        template = stable_choice(self.templates, sample_id, salt="template")
        return str(template).format(text=text.strip(), classes=", ".join(classes))

    def truth(self, answer: str, references: Sequence[str], boxes: Sequence[Box]) -> tuple[str, Box | None]:
        """A sample's `answer` and `box`, from what a data set says and boxes in pixels inside the image."""
        return answer or (references[0] if references else ""), boxes[0] if boxes else None

    def contradicts(self, question: str, answer: str) -> bool:
        """Whether an answer cannot answer its question."""
        return False

    def conflict_key(self, sample: Sample, text: str) -> tuple[str, str] | None:
        """What is asked and answered, bare of templates, where the same question has one answer; else None."""
        return None

    def validate(self, sample: Sample) -> Sample:
        """Return the sample, or raise BadRecord naming the first rule of all samples or of this task that is broken."""
        return sample.validate()

    def label(self, answer: str, references: Sequence[str]) -> str | list[str]:
        """The truth as records hold it, from a sample's or an evaluation item's answer and references."""
        return (list(references) or [answer]) if self.many_references else answer

    def true_boxes(self, sample: Sample) -> list[Box]:
        """The boxes of a sample, in pixels."""
        return [] if sample.box is None else [sample.box]

    def read_boxes(self, answer: str) -> list[Box] | None:
        """The boxes of an answer as written; none for a task without boxes, None where they cannot be read."""
        return []

    def shown_truth(self, sample: Sample, boxes: Convention) -> str:
        """The right answer for people, as the model would write it."""
        return sample.answer

    # --- training -----------------------------------------------------------------------------------------

    @abstractmethod
    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        """The completion in direct mode that SFT teaches."""

    @abstractmethod
    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        """R_a in [0, 1] of an answer already taken out of its completion (METHOD, A²GRPO 1)."""

    def graded_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        """As `answer_reward`, with part of it for a count that is nearly right."""
        return self.answer_reward(answer, sample, boxes)

    def reward(
        self, completion: str, sample: Sample, mode: Mode, boxes: Convention = "norm1000", graded: bool = False
    ) -> float:
        """R_a of a completion: 0 where it holds no readable answer, no substring matching anywhere.

        Args:
            graded: counts by `graded_reward`.
        """
        answer = read_answer(completion, mode)
        if answer is None:
            return 0.0
        return (self.graded_reward if graded else self.answer_reward)(answer, sample, boxes)

    def succeeds(self, reward: float) -> bool | None:
        """Whether an answer with this reward is right; None where the task knows no right or wrong."""
        return None if self.success_reward is None else reward >= self.success_reward

    # --- scores -------------------------------------------------------------------------------------------

    @abstractmethod
    def strict(self, records: RecordList, boxes: Convention = "norm1000") -> Scores:
        """Scores under `strict` (our choice, METHOD Evaluation); `boxes` is the convention of predicted boxes."""

    def official(self, records: RecordList, headline_only: bool = False) -> Scores:
        """Scores by the rules of the published script, to the letter, so that numbers compare.

        A prediction that is missing altogether (the script never writes one) is counted wrong and listed.

        Args:
            headline_only: what takes long and is not the headline may be left out.

        Raises:
            InputError: the script does not know the task, or would stop on a record or on the whole list.
        """
        what = f"the published script does not know {self.name}, so it has no official score"
        raise InputError(what, "--protocol", "use --protocol strict")

    def details(self, records: RecordList, scores: Scores, boxes: str) -> dict[str, Any]:
        """What stands beside the metrics in the evaluation JSON; `boxes` is how predicted ones were read."""
        return {}

    def agreement(self, scores: Scores, group: list[int]) -> tuple[float, int | None]:
        """Of several answers to one question, records `group`: how much they agree in [0, 1], and the record that says
        what they agree on."""
        raise NotImplementedError(f"{self.name} knows no right answer to vote for")

    def true_answers(self, label: Any) -> list[str]:
        """The texts that would be right for a record's label, at least one: empty where it holds none."""
        return [as_text(label) or ""]

    def constant_answer(self, truths: Sequence[Sequence[str]]) -> str:
        """The best that somebody could answer without looking: one text for all records."""
        return most_common(truths)

    def official_warnings(self, records: Sequence[Mapping[str, Any]], drawn: bool) -> list[str]:
        """What must be known before scoring `infer`'s records officially; `drawn`: sampled as that script does."""
        return []


def scored_answers(records: RecordList) -> list[str]:
    """The score's reading of every record; a completion without an answer, cut off or unfinished, is listed."""
    answers = text.scored_answers(records.texts, records.cut.tolist())
    for i in [i for i in np.flatnonzero(records.cut).tolist() if not answers[i]]:
        records.report(i, CUT_OFF, "the token limit came before an answer: counted wrong")
    return answers


def messages(sample: Sample, mode: Mode) -> list[dict[str, str]]:
    """The chat turns before the model's: in tagged mode the system prompt first; `<image>` marks the image."""
    return prompt(sample.question, mode)


def prompt(question: str, mode: Mode) -> list[dict[str, str]]:
    """As `messages`, of any question."""
    turns = [{"role": "user", "content": f"<image>{question}"}]
    return [{"role": "system", "content": SYSTEM_PROMPT}, *turns] if mode == "tagged" else turns
