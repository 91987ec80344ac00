"""The page of a run: one self-contained HTML file, and its score tables as Markdown."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from geozero import __version__
from geozero.common.atomic import replacing
from geozero.common.errors import InputError
from geozero.evaluation.report import details, names, scores, svg, training_charts
from geozero.evaluation.report.from_results import collect
from geozero.evaluation.report.gallery import IMAGES_PER_BLOCK, gather
from geozero.evaluation.report.inputs import FILES, ReportInputs, is_run, read_inputs
from geozero.evaluation.report.latex import scores_latex
from geozero.evaluation.report.markdown import scores_markdown
from geozero.evaluation.report.overview import overviews
from geozero.evaluation.report.plot_files import plot_files
from geozero.evaluation.report.schema import Goal

HERE = Path(__file__).parent
SECTIONS = (
    ("headline", "At a glance"),
    ("scores", "Scores"),
    ("comparisons", "Differences"),
    ("reasoning", "Reasoning"),
    ("details", "Behind the scores"),
    ("difficulty", "Difficulty"),
    ("training", "Training"),
    ("probes", "Thoughts on the way"),
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
GALLERY = 500  # samples shown of records that `geozero evaluate` scored
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


def report(data: Path, out: Path, gallery: int = GALLERY) -> list[Path]:
    """Make the page `out`, and beside it `scores.md`, `scores.tex` and `plots/*.svg`; returns what was written.

    `data` holds the JSON files that a pipeline run left, or results of `geozero evaluate` as MODEL/BENCHMARK.json, of
    which `gallery` records are shown.

    Raises:
        InputError: `data` is no directory, or holds none of the files.
    """
    inputs = read_inputs(data) if is_run(data) else collect(data, gallery)
    written = [build_report(inputs, out)]
    if inputs.scores:
        worlds = scores.worlds(inputs.scores, inputs.baselines, inputs.comparisons)
        tables = overviews(inputs.scores, inputs.baselines, inputs.comparisons, inputs.references)
        differences = details.differences(inputs.comparisons)
        thoughts = details.thoughts(inputs.reasoning)
        for name, text in (
            ("scores.md", scores_markdown(worlds, tables, differences, thoughts)),
            ("scores.tex", scores_latex(tables, worlds)),
        ):
            _write(out.with_name(name), [text])
            written.append(out.with_name(name))
        for name, plot in plot_files(worlds):
            _write(out.parent / "plots" / name, [plot])
            written.append(out.parent / "plots" / name)
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
        sections=_sections(inputs),
        anchors={part: ANCHORS.get(part, part) for part in inputs.faults},
        facts=_facts(inputs.lineage),
        goals=[_goal(goal) for goal in inputs.goals],
        goal_summary=_goal_summary(inputs.goals),
        worlds=scores.worlds(inputs.scores, inputs.baselines, inputs.comparisons),
        overviews=overviews(inputs.scores, inputs.baselines, inputs.comparisons, inputs.references),
        differences=details.differences_by_place(details.differences(inputs.comparisons)),
        thoughts=details.thoughts(inputs.reasoning),
        details=details.cards_by_place(details.details(inputs.details)),
        difficulties=training_charts.difficulties(inputs.difficulty),
        charts=training_charts.curve_charts(inputs.curves),
        durations=training_charts.durations(inputs.timings),
        warnings=details.warnings(inputs.details),
        none_sign=names.NONE,
        total_time=training_charts.duration(sum(t.seconds for t in inputs.timings)),
        gallery=gallery,
        task_titles=names.TASK_TITLES,
        number=svg.number,
        is_code=lambda text: bool(_CODE.search(text)),
        version=__version__,
    )
    _write(out, page)
    return out


def _sections(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The sections that have anything in them, or something to say about why not."""
    shown = {"headline", "scores"}
    for part in FILES:
        if getattr(inputs, part) or part in inputs.faults:
            shown.add(ANCHORS.get(part, part))
    return [(name, title) for name, title in SECTIONS if name in shown]


def _asset(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    text = text.replace("/* TASK_TITLES */ {}", json.dumps(names.TASK_TITLES))
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
    return names.NONE if value is None else str(value)


def _goal_summary(goals: list[Goal]) -> str:
    met, missed = sum(g.ok is True for g in goals), sum(g.ok is False for g in goals)
    rest = len(goals) - met - missed
    return (
        f"{met} of {len(goals)} goals met"
        + (f", {missed} missed" if missed else "")
        + (f", {rest} not measured." if rest else ".")
    )


def _write(path: Path, pieces: Iterable[str]) -> None:
    if path.is_dir():
        raise InputError("a directory stands where a file is expected", str(path), "choose another name")
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file,  # a lone surrogate becomes `?`
    ):
        file.writelines(pieces)
