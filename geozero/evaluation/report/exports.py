"""What is written beside the page: the score tables as Markdown and LaTeX, and the headline plots as SVG files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from geozero.evaluation.report.cells import Cell
from geozero.evaluation.report.details import DIFFERENCE, GAIN, Line
from geozero.evaluation.report.scores import Overview, Row, Table, World

ARROWS = {"up": " ▲", "down": " ▼", "": ""}
LATEX_HEAD = """% Made by `geozero report`; needs \\usepackage{booktabs}.
% Scores in percent unless the metric is a count or a length, 95 % bootstrap intervals in small print. $\\uparrow$ and
% $\\downarrow$: the paired 95 % interval of the difference to the model before it in the same mode excludes 0.
"""
LATEX_ARROWS = {"up": "$\\uparrow$", "down": "$\\downarrow$", "": ""}
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
MIDRULE = "\\midrule"
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_OPENING = re.compile(r"<svg\b[^>]*>")


# --- Markdown ---------------------------------------------------------------------------------------------


def scores_markdown(
    worlds: Iterable[World],
    overviews: Iterable[Overview] = (),
    differences: Sequence[Line] = (),
    reasoning: Sequence[Line] = (),
) -> str:
    """Models × benchmarks, then a table per world and split, the paired differences, and what reasoning gains.

    Scores in percent with their 95 % intervals, beside chance and majority.
    """
    lines = ["# Scores", "", "In percent unless the metric is a count or a length; 95 % intervals in brackets."]
    lines += ["▲ ▼: the paired interval of the difference to the model before it in the same mode excludes 0.", ""]
    for o in overviews:
        head = ["model", *(f"{b.name}, {b.metric}, n = {b.n}" for b in o.benchmarks)]
        names = (f"{row.label} (published)" if row.kind == "reference" else row.label for row in o.rows)
        rows = [[name, *map(_cell, row.cells)] for name, row in zip(names, o.rows, strict=True)]
        lines += _table(o.title, head, rows, 1)
    for world in worlds:
        for table in world.tables:
            head = ["task", "part", "metric", "n", "chance", "majority", *_models(table)]
            rows = [_scores(group.title, row) for group in table.groups for row in (*group.rows, *group.details)]
            lines += _table(f"{world.title}: {table.title}", head, rows, 3)
    if differences:
        head = ["where", "part", "first", "second", "metric", "scores", "difference", "95 % interval", "p", "n"]
        rows = [_marked(line, DIFFERENCE) for line in differences]
        lines += _table("Differences on the same questions, second minus first", head, rows, 6)
    if reasoning:
        head = ["where", "model", "n", "with a thought", "words (median)", "distinct-2", "names its answer", "metric"]
        head += ["without the thought", "gain by reasoning"]
        lines += _table("Reasoning", head, [_marked(line, GAIN) for line in reasoning], 2)
    return "\n".join(lines)


def _models(table: Table) -> list[str]:
    return [f"{model}, {mode}" if mode else model for model, mode in table.columns]


def _scores(title: str, row: Row) -> list[str]:
    part = row.label if row.kind == "detail" else "all"
    return [title, part, row.metric, row.n, row.chance, row.majority, *map(_cell, row.cells)]


def _marked(line: Line, marked: int) -> list[str]:
    cells = [cell + ARROWS[line.mark] if i == marked else cell for i, cell in enumerate(line.cells)]
    return [line.place, *cells]


def _cell(cell: Cell | str | None) -> str:
    if not isinstance(cell, Cell):
        return cell or "–"
    return cell.text + ARROWS[cell.mark] + (f" [{cell.interval}]" if cell.interval else "")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], n_names: int) -> list[str]:
    """Title, head and rows; the first `n_names` columns are names, the others numbers."""
    rule = "| " + " | ".join(["---"] * n_names + ["--:"] * (len(head) - n_names)) + " |"
    return [f"## {_safe(title)}", "", _line(head), rule, *map(_line, rows), ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_safe, cells)) + " |"


def _safe(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


# --- LaTeX ------------------------------------------------------------------------------------------------


def scores_latex(overviews: Iterable[Overview], worlds: Iterable[World]) -> str:
    """One booktabs table per protocol (models × benchmarks), then one per world and split with every metric."""
    tables = [_latex_overview(o) for o in overviews]
    tables += [_latex_split(world, table) for world in worlds for table in world.tables]
    return "\n\n".join([LATEX_HEAD.rstrip(), *tables]) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line."""
    kept = "".join(c if c.isprintable() else " " for c in text)  # a control character stops the compiler
    return "".join(LATEX_SPECIAL.get(c, c) for c in " ".join(kept.split()))


def _latex_overview(o: Overview) -> str:
    rows: list[str] = []
    for before, row in zip([None, *o.rows], o.rows, strict=False):
        if before is not None and before.kind != row.kind:
            rows.append(MIDRULE)
        rows.append(_latex_row([row.label], row.cells))
    head = ["Model", *(f"{b.name} ({b.metric})" for b in o.benchmarks)]
    records = ", ".join(f"{b.name} {b.n}" for b in o.benchmarks)
    return _latex_table("l" + "r" * len(o.benchmarks), head, rows, f"{o.title}. Records: {records}.")


def _latex_split(world: World, table: Table) -> str:
    head = ["Task", "Metric", "n", "Chance", "Majority", *_models(table)]
    rows: list[str] = []
    for group in table.groups:
        rows += [MIDRULE] if rows else []
        for i, row in enumerate(group.rows):
            labels = ["" if i else group.title, row.label, row.n, row.chance, row.majority]
            rows.append(_latex_row(labels, row.cells))
    return _latex_table("ll" + "r" * (len(head) - 2), head, rows, f"{world.title}: {table.title}")


def _latex_row(labels: Iterable[str], cells: Iterable[Cell | str | None] = ()) -> str:
    return " & ".join([*map(escape, labels), *map(_latex_cell, cells)]) + " \\\\"


def _latex_cell(cell: Cell | str | None) -> str:
    if not isinstance(cell, Cell):
        return escape(cell or "–")
    value = f"\\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
    interval = f" {{\\scriptsize [{escape(cell.interval)}]}}" if cell.interval else ""
    return f"{value}{LATEX_ARROWS[cell.mark]}{interval}"


def _latex_table(columns: str, head: Iterable[str], rows: Iterable[str], caption: str) -> str:
    lines = ["\\begin{table}[t]", "\\centering\\small", f"\\caption{{{escape(caption)}}}"]
    lines += [f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}", "\\toprule", _latex_row(head), MIDRULE, *rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])


# --- plots ------------------------------------------------------------------------------------------------


def plot_files(worlds: Iterable[World]) -> Iterator[tuple[str, str]]:
    """File name and SVG of each headline figure; names are unique and plain."""
    names: set[str] = set()
    for world in worlds:
        for figure in world.headlines:
            words = f"{world.name} {figure.title} {figure.split}".lower()
            name = re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "plot"
            while name in names:
                name += "-2"
            names.add(name)
            yield f"{name}.svg", standalone(str(figure.plot))


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
