"""`geozero probe-thinking`: where thinking can pay, before any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from geozero.common.errors import InputError
from geozero.common.terminal import echo

app = typer.Typer()


@app.command("probe-thinking")
def probe_thinking(
    model: Annotated[str, typer.Option(help="A checkpoint, or a hub name in the local cache.")],
    corpus: Annotated[list[Path], typer.Option(help="A corpus with the questions; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Directory for the completions and thinking.json.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Whose questions are asked.")] = "val",
    samples: Annotated[int, typer.Option(min=1, help="Completions per question and way of asking.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions per corpus, by stable hash.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the samples; as in training.")] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens per completion.")] = None,
    full_words: Annotated[int, typer.Option(min=1, help="Words of a thought from which a completion thinks.")] = 10,
    opening: Annotated[str | None, typer.Option(help="How prefilled thoughts begin; the model's own way else.")] = None,
    thought_file: Annotated[
        Path | None, typer.Option(help='JSON lines {"id", "thought"}: whole thoughts to prefill, for these samples.')
    ] = None,
    foresee: Annotated[bool, typer.Option("--predict", help="Also estimate what GRPO and A²GRPO would gain.")] = False,
    params: Annotated[
        Path | None, typer.Option(help="Parameters with pixel limits, engine, boxes and a2grpo's settings.")
    ] = None,
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="The inference engine.")] = "auto",
    boxes: Annotated[str, typer.Option(help="What the model's boxes mean, as of `evaluate`.")] = "norm1000",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
) -> None:
    """Measure, before any training, for which questions thinking pays: right with a thought and without one, and how
    often the model thinks by itself. docs/method.md defines each column.

    Example: geozero probe-thinking --model models/sft --corpus data/corpus/toy_suite_vqa --out /tmp/probe --predict
    """
    from geozero.common.atomic import write_json
    from geozero.evaluation.thinking.probe import RESULT, Probe, predicted, probe, table
    from geozero.inference.corpus_job import CorpusJob
    from geozero.tasks.boxes import CONVENTIONS, Convention
    from geozero.workspace import Workspace

    if boxes not in CONVENTIONS:
        raise InputError(f"unknown convention '{boxes}'", "--boxes", f"one of {', '.join(CONVENTIONS)}")
    convention: Convention = boxes
    options: dict[str, Any] = {"name": engine}
    training: dict[str, Any] = {}
    if params is not None:
        settings = Workspace.open(params)
        options, convention = settings.engine, settings.settings.model.boxes
        rl = settings.settings.a2grpo
        max_tokens = max_tokens or rl.max_completion_tokens
        training = {"steps": rl.steps, "beta": rl.beta, "weight": rl.thinking_weight, "group_size": rl.group_size}
        training |= {"prompts": rl.prompts_per_step, "l0": rl.thought_words}
    job = CorpusJob(
        model=model,
        corpora=tuple(map(str, corpus)),
        out=str(out),
        modes=("tagged",),
        split=split,
        max_tokens=max_tokens or 512,
        samples=samples,
        temperature=temperature,
        seed=seed,
        limit=limit,
        boxes=convention,
        engine=options,
    )
    given = None if thought_file is None else _thoughts(thought_file)
    result = probe(Probe(job, full_words, opening, given), echo)
    if foresee:
        result["rows"] = [row | {"predicted": predicted(row, **training)} for row in result["rows"]]
        write_json(out / RESULT, result)
    for line in table(result):
        echo("\t".join(line))
    echo(f"{out / RESULT}\tcompletions beside it, in tagged/, forced/ and opened/")


def _thoughts(path: Path) -> dict[str, str]:
    """Sample id → thought.

    Raises:
        InputError: the file cannot be read, or a line is not {"id", "thought"}.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                name, text = row["id"], row["thought"]
            except (ValueError, KeyError, TypeError):
                name = text = None
            if not isinstance(name, str) or not isinstance(text, str):
                hint = 'write one JSON object per line: {"id": "…", "thought": "…"}'
                raise InputError("no id and thought", f"{path}, line {number}", hint)
            found[name] = text
    return found
