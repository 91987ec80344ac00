"""Does a server hold the model that is asked for? Its name for it, where its files lie, and a hash of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from geozero.common.errors import InputError
from geozero.engines import checkpoint

# Last names of a path that say nothing: every run has a `model`, a `checkpoint-40`, a `final`
GENERIC = re.compile(
    r"(checkpoint|step|epoch|global_step)[-_]?\d+|model|merged|best|last|latest|final|hf|export|output"
)
IDENTITY_BYTES = 16  # of a content hash
TRUST_FLAG = "--trust-server-model"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as `/v1/models` lists it."""

    name: str
    root: str | None  # where the server's files of it lie, as the server says
    is_adapter: bool  # an adapter on another model
    vllm: bool
    max_length: int | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ServedModel:
        length = row.get("max_model_len")
        root = row.get("root")
        return cls(
            str(row["id"]),
            str(root) if root else None,
            bool(row.get("parent")),
            row.get("owned_by") == "vllm",
            int(length) if length else None,
        )


def choose(models: Sequence[ServedModel], path: Path, trusted: str | None, url: str) -> ServedModel:
    """The one of a server's models that is the checkpoint at `path`, by its name and its root.

    Args:
        trusted: the name of a model that is taken for it, whatever it is.

    Raises:
        InputError: none is.
    """
    held = ", ".join(_described(one) for one in models) or "no model"
    if trusted is not None:
        found = next((one for one in models if one.name == trusted), None)
        if found is None:
            raise InputError(f"the server holds {held}, not '{trusted}'", url, f"correct {TRUST_FLAG}")
        return found
    named = [one for one in models if _names(one.name, path)]
    for one in named:
        if one.is_adapter or (one.root is not None and one.root != one.name and not _names(one.root, path, one.name)):
            continue
        if one.root in (None, one.name) and _is_generic(one.name):
            continue
        return one
    wanted = _short(path)
    if named:
        what = f"the server holds {held}, which may be another model than {path}"
    else:
        what = f"the server holds {held}, not {wanted}"
    raise InputError(
        what, url, f"serve {path} under the name {wanted}, map addresses to models, or add {TRUST_FLAG} NAME"
    )


def check_weights(reported: str, path: Path, url: str) -> None:
    """Compare the content hash that a server of ours reports with the checkpoint's.

    Raises:
        InputError: they differ.
    """
    if reported != checkpoint.content_hash(path):
        changed = " (its files have changed since it started)" if not reported.strip("0") else ""
        raise InputError(
            f"the server holds other weights than {path}{changed}",
            url,
            "start it again with this checkpoint and this version of geozero",
        )


def names_of(path: Path) -> set[str]:
    """The full names of a checkpoint: as given, as a real path, and a hub name's own where it lies in the hub cache."""
    real = path.resolve()
    found = {str(path), str(real)}
    for place in (path, real):
        for parent in place.parents:
            if parent.name.startswith("models--"):
                found.add(parent.name.removeprefix("models--").replace("--", "/"))
    return found


def _names(text: str, path: Path, alias: str | None = None) -> bool:
    """Whether a server's text (a name, a root) means the checkpoint.

    Directories of this machine are compared as such; of what lies elsewhere the last two parts of the path count, or
    the last one where it is all that there is and says enough.

    Args:
        alias: the name that goes with a root.
    """
    text = text.rstrip("/")
    if text in names_of(path):
        return True
    if text.startswith("/") and Path(text).is_dir():
        return _same_content(Path(text), path)
    theirs, ours = _parts(text), _parts(str(path.resolve()))
    given = _parts(str(path))
    if alias is None and len(theirs) == 1:
        return theirs[-1:] == ours[-1:] or theirs[-1:] == given[-1:]
    common = min(2, len(theirs))
    return any(theirs[-common:] == parts[-common:] for parts in (ours, given)) and (common > 1 or not _is_generic(text))


def _same_content(theirs: Path, ours: Path) -> bool:
    """Whether two directories are one, or hold the same checkpoint."""
    if theirs.resolve() == ours.resolve():
        return True
    try:
        return checkpoint.content_hash(theirs) == checkpoint.content_hash(ours)
    except OSError:
        return False


def _is_generic(name: str) -> bool:
    parts = _parts(name)
    return len(parts) == 1 and GENERIC.fullmatch(parts[0]) is not None


def _short(path: Path) -> str:
    """A name that says which checkpoint it is."""
    if "--" in path.parent.parent.name and path.parent.name == "snapshots":
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return "/".join(path.parts[-2:]) if _is_generic(path.name) else path.name


def _described(model: ServedModel) -> str:
    root = f" from {model.root}" if model.root not in (None, model.name) else ""
    return f"{model.name}{root}{' (an adapter)' if model.is_adapter else ''}"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(text).parts if part not in ("/", ".", ".."))


def servers_for(urls: Sequence[str] | Mapping[str, Sequence[str]], path: Path, fold: int | None = None) -> list[str]:
    """The addresses that hold one model.

    Args:
        urls: a list (every address holds every model asked for), or name → addresses, where a name is a model's path,
            the last parts of it, or a fold's, `fold-0`.
        path: the model's directory, or its hub name.
        fold: its number among the filtering models, if it is one.

    Raises:
        InputError: a mapping that does not name it.
    """
    if not isinstance(urls, Mapping):
        return list(urls)
    names = {f"fold-{fold}"} if fold is not None else set()
    whole = [_parts(name) for name in names_of(path)]
    found = [name for name in urls if name in names or any(_ends(parts, _parts(name)) for parts in whole)]
    if not found:
        hint = f"name it under sampling.urls, or as --url {_short(path)}=http://HOST:PORT"
        raise InputError(f"no server is named for {_short(path)}, only for {', '.join(urls) or 'none'}", "urls", hint)
    return [address for name in found for address in urls[name]]


def trusted_name(trust: Mapping[str, str] | str | None, path: Path, fold: int | None, folds: int) -> str | None:
    """The name of the served model that is taken for one model.

    Args:
        trust: what `--trust-server-model` says: a name, or model → name as in `servers_for`.

    Raises:
        InputError: one name for several filtering models: each must be answered for by itself.
    """
    if trust is None or isinstance(trust, str):
        if trust is not None and folds > 1:
            what = f"one served model, '{trust}', cannot stand for {folds} filtering models"
            raise InputError(what, TRUST_FLAG, f"give one a fold: {TRUST_FLAG} fold-0=NAME {TRUST_FLAG} fold-1=NAME")
        return trust
    if not trust:
        return None
    found = {name: [value] for name, value in trust.items()}
    try:
        return servers_for(found, path, fold)[0]
    except InputError:
        return None


def _ends(whole: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Whether a path's last parts are this name; a stage's run may be named without its fingerprint and `model`."""
    if name and whole[-len(name) :] == name:
        return True
    run = whole[:-1] if whole and whole[-1] == "model" else whole
    return len(name) == 1 and bool(run) and (run[-1] == name[0] or run[-1].rpartition("-")[0] == name[0])


def pairs(words: Sequence[str], flag: str = "--url") -> dict[str, list[str]] | list[str]:
    """`NAME=VALUE` words as a mapping; words without a name as a list.

    Raises:
        InputError: some have a name and some have none.
    """
    named = [word.partition("=") for word in words]
    is_named = [bool(equals) and "://" not in name for name, equals, _ in named]
    if not any(is_named):
        return list(words)
    if not all(is_named):
        raise InputError("some values name a model and some do not", flag, "write MODEL=VALUE for all or for none")
    found: dict[str, list[str]] = {}
    for name, _, value in named:
        found.setdefault(name, []).append(value)
    return found


def trusted_models(words: Sequence[str]) -> str | dict[str, str]:
    """What the words of `--trust-server-model` say: one name, or model → name.

    Raises:
        InputError: several names, or one model twice.
    """
    found = pairs(words, TRUST_FLAG)
    if isinstance(found, list):
        if len(found) > 1:
            raise InputError(f"several names: {', '.join(found)}", TRUST_FLAG, "write MODEL=NAME, one a model")
        return found[0]
    twice = next((name for name, values in found.items() if len(values) > 1), None)
    if twice is not None:
        raise InputError(f"several names for {twice}", TRUST_FLAG, "give each model one")
    return {name: value for name, (value,) in found.items()}
