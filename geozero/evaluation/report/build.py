"""The page of a run: one HTML file, and beside it its tables as Markdown and LaTeX and its plots."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from geozero import __version__
from geozero.common.atomic import replacing
from geozero.evaluation.metric_names import MEANINGS
from geozero.evaluation.report import charts, details, plots
from geozero.evaluation.report.exports import plot_files, scores_latex, scores_markdown
from geozero.evaluation.report.from_results import collect
from geozero.evaluation.report.gallery import IMAGES_PER_BLOCK, TEXTS_PER_BLOCK, gather
from geozero.evaluation.report.schema import FILES, ReportInputs, correct, is_run, read_inputs
from geozero.evaluation.report.scores import Sheet, pairs_of_models, ranking, score_table
from geozero.evaluation.report.tables import NONE, SIGNIFICANT, TASK_TITLES, metric_label, model_label
from geozero.evaluation.statistics import MIN_MARKED

HERE = Path(__file__).parent
# Sections in order; all but the first two are folded at first.
SECTIONS = {
    "comparisons": "Which model is better?",
    "scores": "All scores",
    "gallery": "Samples",
    "details": "Behind the scores",
    "reasoning": "Reasoning",
    "training": "Training",
    "difficulty": "Difficulty",
    "goals": "Checks of this run",
    "lineage": "Provenance",
}
# The section that shows a part of the inputs, where it has another name.
SECTION_OF = {"baselines": "scores", "curves": "training", "probes": "training", "timings": "goals"}
FACTS = {"Profile": ("profile",), "Commit": ("commit", "git_commit"), "Seed": ("seed",), "Date": ("date", "time")}
GALLERY = 500  # samples shown of records that `geozero evaluate` scored
COMMIT_LENGTH = 10


def report(data: Path, out: Path, gallery: int = GALLERY) -> list[Path]:
    """Make the page `out`, and beside it `scores.md`, `scores.tex` and `plots/*.svg`; returns what was written.

    `data` holds the JSON files that a pipeline run left, or results of `geozero evaluate` as MODEL/BENCHMARK.json, of
    which `gallery` records are shown. Images that would make the page too large go into a folder beside it.

    Raises:
        InputError: `data` is no directory, or holds none of the files.
    """
    inputs = read_inputs(data) if is_run(data) else collect(data, gallery)
    written = [build_report(inputs, out)]
    if inputs.scores:
        sheet = Sheet(inputs.model_copy(update={"comparisons": correct(inputs.comparisons)}))
        tables = [score_table(sheet), *(pair.table for pair in pairs_of_models(sheet) if pair.table.groups)]
        others = [details.reasoning(inputs.reasoning)] if inputs.reasoning else []
        files = {
            "scores.md": scores_markdown([*tables, *others]),
            "scores.tex": scores_latex(tables),
            **{f"plots/{name}": plot for name, plot in plot_files(sheet)},
        }
        for name, text in files.items():
            _write(out.parent / name, [text])
            written.append(out.parent / name)
    return written


def build_report(inputs: ReportInputs | Path, out: Path) -> Path:
    """Write the page; parts that are missing are named on it.

    The page is safe to open whatever a model answered: all texts are escaped, JSON can't close its script element,
    and a content security policy lets nothing run but the page's own script. The same inputs give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    inputs = read_inputs(inputs) if isinstance(inputs, Path) else inputs
    faults = {part: list(found) for part, found in inputs.faults.items()}
    inputs = inputs.model_copy(update={"faults": faults, "comparisons": correct(inputs.comparisons)})
    sheet = Sheet(inputs)
    gallery = gather(inputs.gallery, sheet.models, out.with_name(f"{out.stem}-images"))
    for fault in gallery.faults:
        inputs.fault("gallery", fault)
    pairs = pairs_of_models(sheet)
    style, script = _asset("page.css"), _asset("page.js")
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"duration": duration, "number": charts.number, "plain": plain}
    page = environment.get_template("page.html.j2").stream(
        inputs=inputs,
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        sections=_sections(inputs),
        section_of={part: SECTION_OF.get(part, part) for part in inputs.faults},
        facts=_facts(inputs.lineage),
        lineage=yaml.safe_dump(inputs.lineage, sort_keys=False, allow_unicode=True),
        models=gallery.models or [model_label(*column) for column in sheet.models],
        n_models=len(sheet.models),
        pairs=pairs,
        ranking=ranking(pairs),
        scores=score_table(sheet),
        meanings=_meanings(inputs),
        n_tested=sum(c.p_corrected is not None for c in inputs.comparisons),
        min_marked=MIN_MARKED,
        significant=SIGNIFICANT,
        references=details.references(inputs.references),
        reasoning=details.reasoning(inputs.reasoning),
        cards=sheet.cards,
        warnings=details.warnings(inputs.details),
        modes=sorted({mode for _, mode in sheet.models}),
        figures=plots.figures(inputs),
        gallery=gallery,
        task_titles=TASK_TITLES,
        version=__version__,
    )
    _write(out, page)
    return out


def _sections(inputs: ReportInputs) -> dict[str, str]:
    """The sections that have anything in them, or something to say about why not."""
    shown = {"comparisons", "scores"}
    shown |= {SECTION_OF.get(part, part) for part in FILES if getattr(inputs, part) or part in inputs.faults}
    return {name: title for name, title in SECTIONS.items() if name in shown}


def _meanings(inputs: ReportInputs) -> dict[str, str]:
    """What the metrics of the page mean, by their label; where two share one, the strict protocol's."""
    found: dict[str, str] = {}
    for name in {s.metric: None for s in sorted(inputs.scores, key=lambda s: s.protocol != "strict")}:
        if name in MEANINGS:
            found.setdefault(metric_label(name), MEANINGS[name])
    return found


def _asset(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    text = text.replace("/* TASK_TITLES */ {}", json.dumps(TASK_TITLES))
    text = text.replace("/* TEXTS_PER_BLOCK */ 200", str(TEXTS_PER_BLOCK))
    return text.replace("/* IMAGES_PER_BLOCK */ 100", str(IMAGES_PER_BLOCK))


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(lineage: dict[str, Any]) -> list[tuple[str, str]]:
    """The few values of the lineage that stand in the head of the page, wherever they lie in it."""
    facts = []
    for title, keys in FACTS.items():
        value = next((v for key in keys if (v := _find(lineage, key)) is not None), None)
        if value is not None:
            facts.append((title, _short(title, str(value))))
    return facts


def _short(title: str, value: str) -> str:
    """The first letters of a commit, and a time stamp to the minute."""
    if title == "Commit":
        return value[:COMMIT_LENGTH]
    if title == "Date" and (found := re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*(Z|\+00:00)", value)):
        return f"{found[1]} {found[2]} UTC"
    return value


def _find(values: Any, key: str, depth: int = 0) -> Any:
    """The first plain value under `key`, nearest to the top first."""
    if not isinstance(values, dict) or depth > 4:
        return None
    if isinstance(values.get(key), str | int | float):
        return values[key]
    return next((v for inner in values.values() if (v := _find(inner, key, depth + 1)) is not None), None)


def plain(value: Any) -> str:
    """A value of any type as the page prints it."""
    return f"{value:.4g}" if isinstance(value, float) else NONE if value is None else str(value)


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _write(path: Path, pieces: Iterable[str]) -> None:
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file,  # a lone surrogate becomes `?`
    ):
        file.writelines(pieces)
