"""Which files of this package a command rests on: what is imported for it, at the top and in functions, and so on.

The data stages depend on these files: dvc.yaml names them, and a test compares.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = f"{PACKAGE}/cli/"
ENTRY = tuple(f"{COMMANDS}{name}.py" for name in ("__init__", "__main__", "app"))
_NAMED = re.compile(rf"({PACKAGE}(?:\.\w+)+)(?::\w+)?")  # a module, or something in it, named in a text


def command(module: str, function: str) -> set[str]:
    """The files that one command rests on, as POSIX paths below the checkout.

    Of the command line that is the entry, the module of the command, and what the command's function imports. The other
    modules are loaded beside it, but only to parse other commands' words.

    Args:
        module: the module of `geozero.cli` that defines the command.
        function: its function there.
    """
    own = f"{COMMANDS}{module}.py"
    imported = _imported(_besides_commands(own, function))
    options = {file for file in imported if file.startswith(COMMANDS)} - {own, *ENTRY}
    entry = {file for part in (*ENTRY, *options) for file in _imported(_besides_commands(part))}
    return _followed(imported | entry) | {own, *ENTRY, *options}


def closure(*modules: str) -> set[str]:
    """The files that these modules and all that they import consist of, as POSIX paths below the checkout.

    Counted are imports of this package anywhere in a file, but for type checkers, the `__init__` of each package above,
    and modules and files that are named in a text (so children are started, templates found). The command line is not
    followed.
    """
    return _followed(file for module in modules for file in _files(module))


def digest(files: Iterable[str]) -> str:
    """Hash of the paths and bytes of files below the checkout."""
    total = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        total.update(file.encode() + b"\0" + hashlib.blake2b((CHECKOUT / file).read_bytes()).digest())
    return total.hexdigest()


def _followed(files: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found and not file.startswith(COMMANDS):
            found.add(file)
            waiting += _needed(file)
    return found


def _besides_commands(file: str, function: str = "") -> list[ast.stmt]:
    """The statements of a module of the command line without the functions of its commands, but for one."""
    return [
        node
        for node in _parsed(file).body
        if not isinstance(node, ast.FunctionDef) or not node.decorator_list or node.name == function
    ]


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    return {file for node in nodes for name in _names(node) for file in _files(name)}


@cache
def _needed(file: str) -> frozenset[str]:
    """What a file itself imports or names."""
    if not file.endswith(".py"):
        return frozenset()
    tree, folder = _parsed(file), (CHECKOUT / file).parent
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {*_names(tree), *(named[1] for text in texts if (named := _NAMED.fullmatch(text)))}
    data = (path for path in _data(folder) if any(fnmatchcase(path.name, text) for text in texts))
    return frozenset(found for name in names for found in _files(name)) | {_below(path) for path in data}


@cache
def _data(folder: Path) -> tuple[Path, ...]:
    """The files that are no code in a package's folder and in folders below that are no packages."""
    here = [path for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")]
    plain = [path for path in folder.iterdir() if path.is_dir() and not (path / "__init__.py").exists()]
    return (*here, *(path for sub in plain if sub.name != "__pycache__" for path in _data(sub)))


@cache
def _parsed(file: str) -> ast.Module:
    return ast.parse((CHECKOUT / file).read_text(encoding="utf-8"))


def _names(node: ast.AST) -> Iterator[str]:
    """The modules that are imported somewhere in a piece of code, `from a import b` as `a.b`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for part in node.orelse if for_types and isinstance(node, ast.If) else ast.iter_child_nodes(node):
        yield from _names(part)


@cache
def _files(module: str) -> tuple[str, ...]:
    """The files of a module and of the packages above it; none where the module is not of this package."""
    parts = module.split(".")
    places = [CHECKOUT.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)] if parts[0] == PACKAGE else []
    either = (path for place in places for path in (place / "__init__.py", place.with_suffix(".py")))
    return tuple(_below(path) for path in either if path.is_file())


def _below(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()
