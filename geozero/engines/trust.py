"""A stranger's checkpoint is data: nothing in it may run as a program unless the user trusts it (`--trust-checkpoint`).

Three things could run: Python that a JSON file names (`auto_map`), Python that unpickling weights calls, and a chat
template that loops. The first two are refused before anything is loaded, and transformers and ms-swift are kept from
importing a checkpoint's Python whatever the files say; templates are stopped after a while.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from geozero.common.errors import InputError
from geozero.common.process import TRUST_CHECKPOINT

HINT = "use a model without it; if you trust its author: --trust-checkpoint, or GEOZERO_TRUST_CHECKPOINT=1"
CODE = frozenset({".py", ".pyc", ".pyd", ".pyz", ".so"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill"})
PLUGINS = frozenset({"external_plugins", "custom_register_path"})  # in ms-swift's args.json: Python files to import
MOST_JSON = 64 << 20  # bytes; the largest published tokenizer.json has 33 MB
RENDER_SECONDS = 10.0  # a chat template takes milliseconds

T = TypeVar("T")


def trusted() -> bool:
    """Whether the user said that checkpoints may run code of their own."""
    return os.environ.get(TRUST_CHECKPOINT, "") not in ("", "0")


def refuse_code(path: Path) -> None:
    """Refuse a checkpoint that holds Python, pickled weights or a JSON file that names Python, at any depth.

    Raises:
        InputError: it does and is not trusted, or a JSON file is unreadable.
    """
    trust = trusted()
    for directory, folders, names in os.walk(path):
        folders.sort()
        if "custom_generate" in (*folders, *names) and not trust:
            raise InputError("the model brings its own code (custom_generate)", directory, HINT)
        for file in (Path(directory, name) for name in sorted(names)):
            suffix = file.suffix.lower()
            if suffix in CODE and not trust:
                raise InputError("the model brings its own code", str(file), HINT)
            if suffix in PICKLES and not trust:
                raise InputError("pickled weights, which may run code when they are loaded", str(file), HINT)
            if suffix == ".json" and file.is_file():
                state = file.stat()
                if _names_code(file, state.st_mtime_ns, state.st_size) and not trust:
                    raise InputError("the model brings its own code (auto_map)", str(file), HINT)


@lru_cache(maxsize=256)
def _names_code(file: Path, modified: int, size: int) -> bool:
    """Whether a JSON file names Python files; the result of a file that stays as it is is kept."""
    named = False

    def keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal named
        named = named or any(key == "auto_map" or (key in PLUGINS and value) for key, value in pairs)
        return dict(pairs)

    read_json(file, object_pairs_hook=keys)
    return named


def read_json(file: Path, **options: Any) -> Any:
    """Parse a checkpoint's JSON file.

    Args:
        options: of `json.loads`.

    Raises:
        InputError: it is missing, no JSON, or too large.
    """
    again = "export or download the model again"
    try:
        size = file.stat().st_size
        if size > MOST_JSON:
            raise InputError(f"a JSON file of {size / 1e6:.0f} MB, more than {MOST_JSON / 1e6:.0f}", str(file), again)
        return json.loads(file.read_bytes(), **options)
    except FileNotFoundError:
        raise InputError(f"{file.name} is missing", str(file.parent), again) from None
    except (ValueError, RecursionError):
        raise InputError("unreadable JSON", str(file), again) from None


def read_object(file: Path) -> dict[str, Any]:
    """Parse a configuration: a JSON object of finite numbers.

    Raises:
        InputError: as `read_json`; or it is something else.
    """

    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise InputError(f"the number {text} in a configuration", str(file), "correct it, or download it again")
        return number

    values = read_json(file, parse_constant=finite, parse_float=finite)
    if not isinstance(values, dict):
        raise InputError("not a JSON object", str(file), "export or download the model again")
    return values


def forbid_code() -> None:
    """Keep transformers, vLLM and ms-swift in this process from importing Python out of a checkpoint.

    ms-swift asks for `trust_remote_code=True` in many places; all of them end in one function of transformers. It
    imports transformers, so call `process.prepare` first.
    """
    if trusted():
        return
    from transformers import dynamic_module_utils

    def refuse(class_name: str, module_path: str | os.PathLike[str], **_: Any) -> NoReturn:
        raise InputError(f"the model brings its own code ({class_name})", str(module_path), HINT)

    dynamic_module_utils.get_class_in_module = refuse


def forbid_code_in_swift(with_vllm: bool = False) -> None:
    """As `forbid_code`; also reset ms-swift's own default, which it passes to vLLM's processes, too.

    Args:
        with_vllm: ms-swift will start a vLLM.
    """
    forbid_code()
    if trusted():
        return
    from swift.model.register import ModelLoader

    ModelLoader.default_trust_remote_code = False
    if with_vllm:
        from swift.infer_engine.vllm_engine import VllmEngine

        prepare = VllmEngine._prepare_engine_kwargs

        def without_code(self: Any, *args: Any, **kwargs: Any) -> None:
            prepare(self, *args, **kwargs)
            self.engine_args.trust_remote_code = False

        VllmEngine._prepare_engine_kwargs = without_code


class _TooLong(BaseException):
    """Raised inside a call that takes too long; no `except Exception` on the way may catch it."""


def within(seconds: float, function: Callable[[], T]) -> T | None:
    """The result of a function of pure Python, or None if it took longer and was interrupted.

    It runs in a thread of its own, untraced: an interruption leaves the locks of a tracer such as coverage's taken.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        sys.settrace(None)
        try:
            results.append(function())
        except _TooLong:
            pass
        except BaseException as error:  # raised where it is waited for
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TooLong))
        return None
    if errors:
        raise errors[0]
    return results[0] if results else None


def rendered(render: Callable[[], str], path: Path) -> str:
    """The text that a checkpoint's chat template makes.

    Raises:
        InputError: there is no template, it fails, or it does not end.
    """
    try:
        text = within(RENDER_SECONDS, render)
    except MemoryError:
        text = None
    except Exception as error:  # whatever a stranger's template fails with
        what = f"the chat template fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(what, str(path), "export or download the model again") from error
    if text is None:
        raise InputError(f"the chat template did not end within {RENDER_SECONDS:g} s", str(path), "use another model")
    return text
