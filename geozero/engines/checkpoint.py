"""A model on disk: where it is, whether it is whole, its content hash, and which tokens it may write."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.corpus.store import file_hash
from geozero.engines.trust import read_json, read_object, refuse_code

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# What a checkpoint's answers depend on besides its weights
CONFIGURATION = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
# Of config.json and its parts: numbers of layers, heads, tokens, sizes
WHOLE_NUMBERS = (
    "vocab_size",
    "max_position_embeddings",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_size",
    "head_dim",
    "depth",
    "patch_size",
    "spatial_merge_size",
)
TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")
HASH_THREADS = 4


def resolve(model: Path | str) -> Path:
    """The directory of a model: a path, or a hub name whose files lie in the local Hugging Face cache.

    A model that brings its own code is refused here, see `trust`.

    Raises:
        InputError: there is none, it holds no configuration or a broken one, no weights, cut off ones, not all of its
            index, or code.
    """
    path = Path(model)
    if not path.is_dir():
        path = _from_cache(str(model))
    if not (path / "config.json").is_file():
        raise InputError("no model here: config.json is missing", str(path), "give the directory of a checkpoint")
    weights = weight_files(path)
    if not weights:
        raise InputError("the model has no weights (*.safetensors)", str(path), "train or download it again")
    for file in weights:
        if file.suffix == ".safetensors" and not is_whole(file):  # older .bin files are no archives
            raise InputError("the weights are cut off", str(file), "train or download the model again")
    refuse_code(path)
    _check_types(path)
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = set(read_json(index)["weight_map"].values())
            _ = [path / name for name in named]
        except (KeyError, AttributeError, TypeError):
            raise InputError("unreadable weight index", str(index), "download the model again") from None
        missing = sorted(name for name in named if not (path / name).is_file())
        if missing:
            raise InputError(f"weight file {missing[0]} is missing", str(path), "download the model again")
    return path


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turn whatever a library fails with while it loads a checkpoint's files into one line.

    Raises:
        InputError: it failed for another reason than a package that is missing here or memory that is short.
    """
    try:
        yield
    except (InputError, ImportError, MemoryError):
        raise
    except Exception as error:  # a broken checkpoint fails in as many ways as there are libraries that read it
        if type(error).__name__ == "OutOfMemoryError":
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        what = f"the checkpoint does not load: {type(error).__name__}: {lines[0][:300]}"
        raise InputError(what, str(path), "export or download the model again") from error


def check_tokenizer(path: Path) -> None:
    """Refuse a checkpoint without a tokenizer, for which transformers would make one that knows no word.

    Raises:
        InputError: it has none.
    """
    if not any((path / name).is_file() for name in TOKENIZERS):
        raise InputError("the model has no tokenizer.json", str(path), "export or download the model again")


def is_whole(file: Path) -> bool:
    """Whether a weight file is as long as its header says, or the zip archive that torch writes has its end."""
    if file.suffix != ".safetensors":
        return zipfile.is_zipfile(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= size - 8:
            return False
        try:
            header = json.loads(stream.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False
    return bool(size == 8 + length + end)


def _from_cache(name: str) -> Path:
    if name.count("/") == 1 and not name.startswith((".", "/")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            pass
    raise InputError("no such model", name, "give a checkpoint's directory, or download it first: hf download NAME")


def _check_types(path: Path) -> None:
    """Refuse configurations that are no objects, and values of other types than those that are read here."""
    for name in CONFIGURATION:
        if name.endswith(".json") and (path / name).is_file():
            read_object(path / name)
    config = read_object(path / "config.json")
    text = config.get("text_config", config)
    tokenizer = read_object(path / "tokenizer.json") if (path / "tokenizer.json").is_file() else {}
    settings = read_object(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    added, decoder = tokenizer.get("added_tokens", []), settings.get("added_tokens_decoder", {})
    right = {
        "config.json: model_type": isinstance(config.get("model_type", ""), str),
        "config.json: text_config": isinstance(text, dict),
        "config.json: vision_config": isinstance(config.get("vision_config", {}), dict),
        "config.json: architectures": _are(config.get("architectures") or [], str),
        **{
            f"config.json: {name}": isinstance(part.get(name, 0), int | None) and not isinstance(part.get(name), bool)
            for part in (config, text, config.get("vision_config"))
            if isinstance(part, dict)
            for name in WHOLE_NUMBERS
        },
        "tokenizer.json: added_tokens": _are(added, dict) and _are([token.get("content") for token in added], str),
        "tokenizer_config.json: added_tokens_decoder": isinstance(decoder, dict)
        and _are(list(decoder.values()), dict)
        and _are([token.get("content") for token in decoder.values()], str),
    }
    for place, fits in right.items():
        if not fits:
            raise InputError("a value of the wrong type", f"{path}/{place}", "export or download the model again")


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def weight_files(path: Path) -> list[Path]:
    return sorted({file for pattern in WEIGHTS for file in path.glob(pattern) if file.is_file()})


def content_hash(path: Path) -> str:
    """Hash of what the answers depend on: weights, configuration, tokenizer, processor. Reads every byte."""
    files = [*weight_files(path), *(path / name for name in CONFIGURATION if (path / name).is_file())]
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        hashes = list(pool.map(file_hash, files))
    total = hashlib.blake2b(digest_size=16)
    for file, value in sorted(zip(files, hashes, strict=True)):
        total.update(f"{file.name}\x1f{value}\x1e".encode())
    return total.hexdigest()


def special_tokens(path: Path) -> frozenset[str]:
    """The texts that the checkpoint's tokenizer reads as special tokens.

    Raises:
        InputError: its files do not say.
    """
    with loading(path):
        if (path / "tokenizer.json").is_file():
            added = read_json(path / "tokenizer.json").get("added_tokens", [])
        else:
            config = path / "tokenizer_config.json"
            added = read_json(config).get("added_tokens_decoder", {}).values() if config.is_file() else []
        return frozenset(str(token["content"]) for token in added if token.get("special"))


def positions(path: Path) -> int | None:
    """The longest sequence that the model knows, in tokens; None where its configuration does not say.

    Raises:
        InputError: the configuration is unreadable.
    """
    with loading(path):
        config = read_object(path / "config.json")
        found = config.get("text_config", config).get("max_position_embeddings")
        return None if found is None else int(found)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens that end an answer, and those that must never occur in one.

    A weak model writes `<|image_pad|>` or a padded row of the output layer, and encoding its text again fails. So
    every engine suppresses all special tokens except the end tokens, the rows without a token, and what the
    generation config lists as `suppress_tokens`.
    """

    end: tuple[int, ...]
    suppressed: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, tokenizer: Any) -> Vocabulary:
        """Read it from the checkpoint's files and its loaded tokenizer."""
        config = json.loads((path / "config.json").read_text())
        generation_file = path / "generation_config.json"
        generation = json.loads(generation_file.read_text()) if generation_file.is_file() else {}
        rows = int(config.get("text_config", config).get("vocab_size") or len(tokenizer))
        end = {tokenizer.eos_token_id, tokenizer.pad_token_id, *_as_list(generation.get("eos_token_id"))} - {None}
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        out = special | set(range(len(tokenizer), rows)) | set(_as_list(generation.get("suppress_tokens")))
        return cls(tuple(sorted(end)), tuple(sorted(n for n in out - end if n < rows)))


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
