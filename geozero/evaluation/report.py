"""The page of a run: one self-contained HTML file, and its score tables as Markdown."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from geozero import __version__
from geozero.evaluation import plots, report_charts, report_scores
from geozero.evaluation.gallery import IMAGES_PER_BLOCK, gather
from geozero.evaluation.report_inputs import Goal, ReportInputs, read_inputs
from geozero.evaluation.report_markdown import scores_markdown

HERE = Path(__file__).parent
SECTIONS = (
    ("headline", "At a glance"),
    ("scores", "Scores"),
    ("difficulty", "Difficulty"),
    ("training", "Training"),
    ("gallery", "Gallery"),
    ("lineage", "Lineage"),
)
ANCHORS = {"goals": "headline", "baselines": "scores", "curves": "training", "timings": "lineage"}
FACTS = (
    ("Profile", ("profile",)),
    ("Commit", ("commit", "git_commit")),
    ("Seed", ("seed",)),
    ("Date", ("date", "time")),
)
GOAL_WORDS = {True: ("met", "✓ met"), False: ("missed", "✗ missed"), None: ("open", "not measured")}
COMMIT_LENGTH = 10

_CODE = re.compile(r"[0-9a-f]{16,}|[/\\]|==|\.(?:parquet|yaml|json)$")


@dataclass(frozen=True, slots=True)
class ShownGoal:
    name: str
    wanted: str
    reached: str
    note: str
    state: str
    word: str


def report(data: Path, out: Path) -> list[Path]:
    """Make the page `out` from the JSON files in `data`, and `scores.md` beside it; returns what was written.

    Raises:
        InputError: `data` is no directory, or holds none of the files.
    """
    inputs = read_inputs(data)
    written = [build_report(inputs, out)]
    if inputs.scores:
        tables = out.with_name("scores.md")
        _write(tables, [scores_markdown(report_scores.worlds(inputs.scores, inputs.baselines))])
        written.append(tables)
    return written


def build_report(inputs: ReportInputs | Path, out: Path) -> Path:
    """Write the page: no network, no other file; parts that are missing are named on it.

    The page is safe to open whatever a model answered: all texts are escaped, JSON can't close its script element,
    and a content security policy lets nothing run but the page's own script.
    The same inputs give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    inputs = read_inputs(inputs) if isinstance(inputs, Path) else inputs
    inputs = inputs.model_copy(update={"faults": {part: list(said) for part, said in inputs.faults.items()}})
    gallery = gather(inputs.gallery, inputs.folder)
    for fault in gallery.faults:
        inputs.fault("gallery", fault)
    style, script = _asset("page.css"), _asset("page.js")
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("page.html.j2").stream(
        inputs=inputs,
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        sections=SECTIONS,
        anchors={part: ANCHORS.get(part, part) for part in inputs.faults},
        facts=_facts(inputs.lineage),
        goals=[_goal(goal) for goal in inputs.goals],
        goal_summary=_goal_summary(inputs.goals),
        worlds=report_scores.worlds(inputs.scores, inputs.baselines),
        difficulties=report_charts.difficulties(inputs.difficulty),
        charts=report_charts.curve_charts(inputs.curves),
        durations=report_charts.durations(inputs.timings),
        total_time=report_charts.duration(sum(t.seconds for t in inputs.timings)),
        gallery=gallery,
        task_titles=report_scores.TASK_TITLES,
        number=plots.number,
        is_code=lambda text: bool(_CODE.search(text)),
        version=__version__,
    )
    _write(out, page)
    return out


def _asset(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    return text.replace("/* IMAGES_PER_BLOCK */ 100", str(IMAGES_PER_BLOCK))


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(lineage: dict[str, Any]) -> list[tuple[str, str]]:
    """The few values of the lineage that stand in the head of the page, wherever they lie in it."""
    facts = []
    for title, keys in FACTS:
        value = next((v for key in keys if (v := _find(lineage, key)) is not None), None)
        if value is not None:
            facts.append((title, str(value)[:COMMIT_LENGTH] if title == "Commit" else str(value)))
    return facts


def _find(values: Any, key: str, depth: int = 0) -> Any:
    """The first plain value under `key`, nearest to the top first."""
    if not isinstance(values, dict) or depth > 4:
        return None
    if isinstance(values.get(key), str | int | float):
        return values[key]
    return next((v for inner in values.values() if (v := _find(inner, key, depth + 1)) is not None), None)


def _goal(goal: Goal) -> ShownGoal:
    state, word = GOAL_WORDS[goal.ok]
    return ShownGoal(goal.name, _value(goal.wanted), _value(goal.reached), goal.note, state, word)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return report_scores.NONE if value is None else str(value)


def _goal_summary(goals: list[Goal]) -> str:
    met, missed = sum(g.ok is True for g in goals), sum(g.ok is False for g in goals)
    rest = len(goals) - met - missed
    return (
        f"{met} of {len(goals)} goals met"
        + (f", {missed} missed" if missed else "")
        + (f", {rest} not measured." if rest else ".")
    )


def _write(path: Path, pieces: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:  # a lone surrogate becomes `?`
        file.writelines(pieces)
    os.replace(temporary, path)
