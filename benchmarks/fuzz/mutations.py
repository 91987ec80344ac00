"""Changes of files as damage and malice make them: bytes, texts, JSON, names; the same for the same random numbers."""

from __future__ import annotations

import json
import random
import re
from typing import Any

Files = dict[str, bytes]  # relative name → content; a link's content begins with `LINK`

LINK = b"link to "
MOST = 4  # changes of one file
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKENS = [
    b"", b"0", b"-1", b"-0.0", b"1e999", b"NaN", b"Infinity", b"9" * 401, b"1" * 5000, b"1e-400", b"0x1F", b"null",
    b"true", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[31m", b"\xe2\x80\xae", b"\xed\xa0\x80", "٣".encode(),
    "½".encode(), b"../../outside", b"/etc/passwd", b"a" * 300, b"%s%n", b"{{7*7}}", b"<answer>", b"</answer>",
    b"<box>", b"<|im_end|>", b"[", b"]", b"{", b"}", b'"', b"'", b"<", b">", b"&", b"&lol;", b",", b";", b"\t",
    b"\r\n", b"\n", b"|", b"\\", b"\\u0000", b"*a", b"&a", b"!!python/object/apply:os.system", b"<<: *x", b"- " * 200,
    b"[" * 3000,
    b"{% for i in range(10**9) %}",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1e308, float("nan"), float("inf"), 2**63, -(2**70), 10**400, "", " ", "0", "\x00",
    "\x1b[2J", "\ud800", "../../outside", "/etc/passwd", "a" * 5000, [], {}, [[]], [None], {"": None}, [1, 2, 3, 4],
    [1e9] * 5, [float("nan")] * 4, ["x"] * 4, [[1, 2], [3]], {"a": {"a": {}}}, "1,2,3,4", 0.1 + 0.2, 10**18,
]  # fmt: skip
NAMES = [
    "..",
    "a" * 240,
    "x\ny.jpg",
    "x\x1b[31m.png",
    "CON",
    " ",
    "é.JPG",
    "x.tar",
    "x.zip",
    "x.json",
    "train",
    "x;rm -rf y",
]
_WORD = re.compile(rb"[-+.\w]+|[^\s\w]")


def mutated(rng: random.Random, files: Files, others: list[Files]) -> Files:
    """A copy with one to three files changed, renamed, replaced or taken away."""
    result = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not result:
            break
        name = _chosen(rng, result)
        chance = rng.random()
        if chance < 0.03:
            del result[name]
        elif chance < 0.06:
            result[_renamed(rng, name)] = result.pop(name)
        elif chance < 0.08:
            result[name] = LINK + rng.choice(["../../outside", name.rpartition("/")[2], "/etc/passwd", "."]).encode()
        elif chance < 0.10:
            result[name] = rng.choice([b"", b"\x00" * 4096, rng.randbytes(200)])
        elif chance < 0.13:
            other = rng.choice(others)
            result[name] = other[rng.choice(sorted(other))]
        else:
            result[name] = changed(rng, result[name], [other[n] for other in others[:3] for n in sorted(other)[:3]])
    return result


def changed(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four changes of a file, as fits what it is."""
    kind = _kind(data)
    for _ in range(rng.randint(1, MOST)):
        if kind == "json" and rng.random() < 0.6:
            data = _json(rng, data)
        elif kind != "binary" and rng.random() < 0.75:
            data = _text(rng, data)
        else:
            data = _bytes(rng, data, others)
    return data


def _kind(data: bytes) -> str:
    if data[:1] in (b"{", b"[") and b"\x00" not in data[:200]:
        return "json"
    return "text" if data and not re.search(rb"[\x00-\x08\x0e-\x1a]", data[:400]) else "binary"


def _chosen(rng: random.Random, files: Files) -> str:
    """A file's name; what describes others (annotations, lists, tables, archives) more often than an image."""
    names = sorted(files)
    weights = [1 if name.lower().endswith((".jpg", ".png", ".tif", ".bmp")) else 6 for name in names]
    return rng.choices(names, weights)[0]


def _renamed(rng: random.Random, name: str) -> str:
    folder, _, base = name.rpartition("/")
    new = rng.choice([*NAMES, base.upper(), base + ".bak", base.partition(".")[0]])
    return f"{folder}/{new}" if folder else new


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randrange(min(len(data), rng.choice((32, 512, len(data) or 1)))) if data else 0


def _bytes(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    at, n = _place(rng, data), rng.choice((1, 2, 4, 8, 64, 1024))
    head, tail = data[:at], data[at:]
    match rng.randrange(9):
        case 0:
            return head + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :] if data else b"\x01"
        case 1:
            size = rng.choice((1, 2, 4, 8))
            number: bytes = (rng.choice(NUMBERS) & (256**size - 1)).to_bytes(size, rng.choice(("little", "big")))
            return head + number + data[at + size :]
        case 2:
            return head + data[at + n :]
        case 3:
            return head + tail[:n] * rng.choice((2, 3, 20)) + tail[n:]
        case 4:
            return head + rng.randbytes(n) + tail
        case 5:
            return head
        case 6:
            other = rng.choice(others) if others else data
            start = _place(rng, other)
            return head + other[start : start + n * 8] + data[at + n * 8 :]
        case 7:
            return head + rng.randbytes(min(n, 8)) + data[at + min(n, 8) :]
        case _:
            return head + rng.choice(TOKENS) + tail


def _text(rng: random.Random, data: bytes) -> bytes:
    words = list(_WORD.finditer(data))
    if not words:
        return rng.choice(TOKENS)
    word = rng.choice(words)
    token = rng.choice(TOKENS) if rng.random() < 0.8 else rng.choice(words)[0]
    match rng.randrange(5):
        case 0 | 1:
            return data[: word.start()] + token + data[word.end() :]
        case 2:
            return data[: word.start()] + token + data[word.start() :]
        case 3:
            lines = data.split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            return b"\n".join(lines)
        case _:
            lines = data.split(b"\n")
            del lines[rng.randrange(len(lines))]
            return b"\n".join(lines)


def _json(rng: random.Random, data: bytes) -> bytes:
    """Another value, key or depth at a random place of the tree."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return _text(rng, data)
    node: Any = tree
    parents: list[tuple[Any, Any]] = []
    while isinstance(node, dict | list) and node and (not parents or rng.random() < 0.8):
        key = rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
        parents.append((node, key))
        node = node[key]
    if not parents:
        return json.dumps(rng.choice(VALUES), default=str).encode()
    holder, key = parents[-1]
    chance = rng.random()
    if chance < 0.6:
        holder[key] = rng.choice(VALUES)
    elif chance < 0.7:
        del holder[key]
    elif chance < 0.8:
        holder[key] = [holder[key]] if rng.random() < 0.5 else {"": holder[key]}
    elif chance < 0.9 and isinstance(holder, dict):
        holder[rng.choice(["", "id", "images", "\x1b[0m", "__class__", "a" * 300])] = holder.pop(key)
    elif isinstance(holder, list):
        holder.extend(holder[: rng.randrange(len(holder) + 1)])
    else:
        holder[key] = str(holder[key])
    try:
        return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    except (ValueError, RecursionError):
        return data
