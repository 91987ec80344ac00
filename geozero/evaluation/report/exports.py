"""What is written beside the page: its tables as Markdown and LaTeX, and a plot of each test set as an SVG file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report import charts
from geozero.evaluation.report.scores import Sheet, headline_places
from geozero.evaluation.report.tables import NONE, Cell, Row, Table, model_label

ARROWS = {"better": " ▲", "worse": " ▼"}
LATEX_HEAD = """% Made by `geozero report`; needs \\usepackage{booktabs}.
% Scores in percent unless the metric is a count or a length, 95 % intervals in small print. Bold, $\\uparrow$ and
% $\\downarrow$: significant at 0.05 after Holm's correction for all comparisons.
"""
LATEX_ARROWS = {"better": "$\\uparrow$", "worse": "$\\downarrow$"}
LATEX_SPECIAL = {
    "\\": "\\textbackslash{}",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",
    "²": "\\textsuperscript{2}",
    "–": "--",
    "−": "$-$",
    "→": "$\\to$",
} | {c: f"\\{c}" for c in "{}$&#%_"}
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
TONES = {"base": "base", "sft": "before", "a2grpo": "after"}
_OPENING = re.compile(r"<svg\b[^>]*>")


# --- Markdown ---------------------------------------------------------------------------------------------


def scores_markdown(tables: Iterable[Table]) -> str:
    """The tables of the page, folded rows included."""
    lines = ["# Scores", "", "In percent unless the metric is a count or a length; 95 % intervals in brackets."]
    lines += ["▲ ▼: significantly better or worse (p < 0.05 after Holm's correction).", ""]
    for table in tables:
        grouped = [""] if any(group.title for group in table.groups) else []
        head = [*grouped, *(", ".join(filter(None, column)) for column in table.head)]
        rule = "| " + " | ".join(["---"] * (1 + len(grouped)) + ["--:"] * (len(table.head) - 1)) + " |"
        lines += [f"## {_safe(table.title)}", "", _line(head), rule]
        for group in table.groups:
            for row in group.rows:
                lines.append(_line([*(group.title for _ in grouped), *map(_cell, (row.label, *row.cells))]))
        lines.append("")
    return "\n".join(lines)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    small = f" [{cell.small}]" if cell.small else ""
    return (f"**{cell.text}**" if cell.best else cell.text) + ARROWS.get(cell.mark, "") + small


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_safe, cells)) + " |"


def _safe(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


# --- LaTeX ------------------------------------------------------------------------------------------------


def scores_latex(tables: Iterable[Table]) -> str:
    """The same tables with booktabs, without the rows that the page folds away."""
    return "\n\n".join([LATEX_HEAD.rstrip(), *map(_latex_table, tables)]) + "\n"


def _latex_table(table: Table) -> str:
    columns = "l" + "r" * (len(table.head) - 1)
    lines = ["\\begin{table}[t]", "\\centering\\small", f"\\caption{{{escape(table.title)}}}"]
    lines += [f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}", "\\toprule"]
    lines += [_latex_line(map(escape, names)) for names in zip_longest(*table.head, fillvalue="")]
    for group in table.groups:
        lines.append("\\midrule")
        if group.title:
            lines.append(f"\\multicolumn{{{len(table.head)}}}{{@{{}}l}}{{{escape(group.title)}}} \\\\")
        lines += [_latex_row(row) for row in group.rows if row.kind != "detail"]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])


def _latex_row(row: Row) -> str:
    return _latex_line(map(_latex_cell, (row.label, *row.cells)))


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return escape(NONE)
    text = f"\\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
    return text + LATEX_ARROWS.get(cell.mark, "") + (f" {{\\scriptsize [{escape(cell.small)}]}}" if cell.small else "")


def escape(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line."""
    kept = "".join(c if c.isprintable() else " " for c in text)  # a control character stops the compiler
    return "".join(LATEX_SPECIAL.get(c, c) for c in " ".join(kept.split()))


# --- plots ------------------------------------------------------------------------------------------------


def plot_files(sheet: Sheet) -> Iterator[tuple[str, str]]:
    """File name and SVG of each test set; names are unique and plain."""
    names: set[str] = set()
    for title, scores, guess in headline_places(sheet):
        first = next(iter(scores.values()))
        scale = metric_format(first.metric).best or 1.0
        rows = [
            charts.Estimate(
                model_label(*column),
                (s.value or 0.0) / scale,
                None if s.low is None else s.low / scale,
                None if s.high is None else s.high / scale,
                TONES.get(s.model, "other"),
            )
            for column in sheet.models
            if (s := scores.get(column)) is not None
        ]
        guesses = {} if guess is None else {"chance": guess.chance, "majority": guess.majority}
        marks = {name: value / scale for name, value in guesses.items() if value is not None}
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "plot"
        while name in names:
            name += "-2"
        names.add(name)
        yield f"{name}.svg", standalone(charts.forest(rows, marks, metric_format(first.metric).factor * scale))


def standalone(svg: str) -> str:
    """A plot of the page as a file: name space, a white ground, and the page's light colours."""
    dark = STYLE.index("@media (prefers-color-scheme: dark)")
    light = STYLE[:dark] + STYLE[STYLE.index("\n}\n", dark) + 3 :]
    kept = (":root", "  --", "}", ".plot", ".base")
    style = "\n".join(line for line in light.splitlines() if line.startswith(kept))
    opening = _OPENING.match(svg)
    if opening is None:
        raise ValueError("no SVG")
    head = opening.group().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'{head}<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{svg[opening.end() :]}\n'
