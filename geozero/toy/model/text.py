"""The text stages of pre-training: several dialogues about one image share its tokens in one row of a batch.

A row holds the prompt up to the end of the image, then dialogue after dialogue. Each of them sees the prompt and
itself, at the positions that it would have alone, so that a row trains exactly what its dialogues would train one by
one, at about half the cost: most of a single dialogue is system prompt and image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geozero.tasks.text import CLOSE_TAG, OPEN_TAG
from geozero.toy.model.dialogues import Dialogue
from geozero.toy.model.optimization import optimisers, train_resumably
from geozero.toy.world.description import coordinates
from geozero.toy.world.referring import centre
from geozero.toy.world.scene import Scene

REPORT_EVERY = 100
_BOX = re.compile(r"\[[\d, ]+\]")
DIGIT_WEIGHTS = (3.0, 2.0, 0.3)  # of a coordinate's digits in the loss; the last one is below what can be seen
PUNCTUATION_WEIGHT = 0.3  # of what is between them
TEXT, ANSWER, FIRST, SECOND = range(4)  # parts of which the loss is reported


GUIDED_LAYER, GUIDED_HEADS = 2, (0, 3)  # one head for each of the two key-value heads
GUIDE_WEIGHT = 0.5


@dataclass(frozen=True)
class Piece:
    """What follows the prompt in one dialogue. For each token: its id, its weight in the loss, which part it is, and
    for the digits of a box the image token (its place among those of the image) that shows them, -1 elsewhere."""

    ids: list[int]
    weights: list[float]
    parts: list[int]
    cells: list[int]


@dataclass(frozen=True)
class Row:
    """Dialogues about scene `index`: the ids of their shared prompt, and what follows it in each of them."""

    index: int
    prompt: list[int]
    pieces: list[Piece]


def fill_row(
    index: int,
    system: str,
    tokenizer: Any,
    image_tokens: int,
    length: int,
    weight: float,
    boxes: Mapping[str, int],
    draw: Callable[[], Dialogue],
) -> Row:
    """A row of drawn dialogues with as many tokens as `length`, or a few more. `boxes`: `shown_at` of the scene."""
    row = Row(index, prompt_ids(system, tokenizer, image_tokens), [])
    filled = len(row.prompt)
    while filled < length:
        row.pieces.append(encode(draw(), tokenizer, weight, boxes))
        filled += len(row.pieces[-1].ids)
    return row


def shown_at(scene: Scene, image_tokens: int) -> dict[str, int]:
    """The box of each object, as it is written -> the image token on which its middle lies."""
    side = round(image_tokens**0.5)
    middles = [(coordinates(item, scene), centre(item, scene.size)) for item in scene.objects]
    return {box: min(side - 1, int(y * side)) * side + min(side - 1, int(x * side)) for box, (x, y) in middles}


def encode(d: Dialogue, tokenizer: Any, answer_weight: float, boxes: Mapping[str, int]) -> Piece:
    """A dialogue from its question on.

    The question weighs nothing; a whole answer weighs as much as `answer_weight` tokens, however short it is.
    """
    before = tokenizer(f"{d.user}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    after = tokenizer(f"{d.assistant}<|im_end|>", add_special_tokens=False, return_offsets_mapping=True)
    start, end = 0, len(d.assistant)  # without tags the whole text is the answer
    if OPEN_TAG in d.assistant:
        start, end = d.assistant.find(OPEN_TAG) + len(OPEN_TAG), d.assistant.find(CLOSE_TAG)
    inside = [start <= offset < end for offset, _ in after["offset_mapping"]]
    short = max(1.0, answer_weight / max(1, sum(inside)))
    weights = [short if i else 1.0 for i in inside]
    parts = [ANSWER if i and short > 1 else TEXT for i in inside]
    digits = box_weights(d.assistant)
    cells = [-1] * len(weights)
    places = [(box.span(), boxes.get(box[0], -1)) for box in _BOX.finditer(d.assistant)]
    for k, (offset, _) in enumerate(after["offset_mapping"]):
        if offset in digits:
            weights[k] = digits[offset]
            parts[k] = {DIGIT_WEIGHTS[0]: FIRST, DIGIT_WEIGHTS[1]: SECOND}.get(weights[k], TEXT)
            if parts[k] != TEXT:
                cells[k] = next(cell for (left, right), cell in places if left <= offset < right)
    n = len(before)
    return Piece(before + after["input_ids"], [0.0] * n + weights, [TEXT] * n + parts, [-1] * n + cells)


def box_weights(text: str) -> dict[int, float]:
    """The weight of each character of the boxes in a text, by its place."""
    found: dict[int, float] = {}
    for box in _BOX.finditer(text):
        found |= dict.fromkeys(range(*box.span()), PUNCTUATION_WEIGHT)
        for number in re.finditer(r"\d+", box[0]):
            for k, place in enumerate(range(*number.span())):
                found[box.start() + place] = DIGIT_WEIGHTS[k]
    return found


def prompt_ids(system: str, tokenizer: Any, image_tokens: int) -> list[int]:
    """Token ids of a row's shared beginning: the system prompt and the user's image (none for 0 tokens)."""
    image = "<|vision_start|>" + "<|image_pad|>" * image_tokens + "<|vision_end|>" if image_tokens else ""
    opened = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return list(tokenizer(f"{opened}<|im_start|>user\n{image}", add_special_tokens=False)["input_ids"])


def collate(rows: Sequence[Row], image_id: int, pad_id: int) -> dict[str, Any]:
    """A padded batch.

    Returns:
        ids, weights, parts, cells (n, length); mask (n, 1, length, length), True where a token sees another;
        positions (3, n, length): time, height and width, as the model itself gives them to a single dialogue.
    """
    import torch

    length = max(len(row.prompt) + sum(len(piece.ids) for piece in row.pieces) for row in rows)
    ids = np.full((len(rows), length), pad_id, np.int64)
    weights, parts = np.zeros((len(rows), length), np.float32), np.zeros((len(rows), length), np.int64)
    cells = np.full((len(rows), length), -1, np.int64)
    owner = np.full((len(rows), length), -1, np.int64)  # 0 the prompt, 1, 2, … its dialogues, -1 padding
    positions = np.zeros((3, len(rows), length), np.int64)
    for r, row in enumerate(rows):
        at = len(row.prompt)
        ids[r, :at], owner[r, :at] = row.prompt, 0
        following = _prompt_positions(positions[:, r], [token == image_id for token in row.prompt])
        for k, piece in enumerate(row.pieces, start=1):
            span = slice(at, at + len(piece.ids))
            ids[r, span], weights[r, span], owner[r, span] = piece.ids, piece.weights, k
            parts[r, span], cells[r, span] = piece.parts, piece.cells
            positions[:, r, span] = following + np.arange(len(piece.ids))
            at += len(piece.ids)
    place = np.arange(length)
    sees = (owner[:, None, :] == owner[:, :, None]) | (owner[:, None, :] == 0)
    mask = sees & (place[None, :] <= place[:, None])
    tensors = {"ids": ids, "weights": weights, "parts": parts, "cells": cells}
    tensors |= {"mask": mask[:, None], "positions": positions}
    return {name: torch.as_tensor(value) for name, value in tensors.items()}


def _prompt_positions(positions: Any, is_image: Sequence[bool]) -> int:
    """Fill the prompt's positions (3, length) in place; the position after it."""
    at, seen, side = 0, 0, round(sum(is_image) ** 0.5)
    for k, image in enumerate(is_image):
        if not image:
            positions[:, k] = at
            at += 1
            continue
        positions[:, k] = at, at + seen // side, at + seen % side
        seen += 1
        if seen == side * side:
            at += side
    return at


def hidden_states(model: Any, batch: dict[str, Any], seen: Any | None, deep: Any | None) -> Any:
    """The text model's last hidden states (n, length, hidden) on image tokens `seen` and their deep-stack features."""
    import torch

    embedded = model.model.language_model.embed_tokens(batch["ids"])
    vision: dict[str, Any] = {}
    if seen is not None and deep is not None:
        image = batch["ids"] == model.config.image_token_id
        embedded = embedded.masked_scatter(image[..., None], seen)
        vision = {"visual_pos_masks": image, "deepstack_visual_embeds": [deep.flatten(0, 1)]}
    # torch's CPU kernel takes a mask of floats faster than one of booleans
    mask = torch.where(batch["mask"], 0.0, torch.finfo(torch.float32).min)
    return model.model.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=batch["positions"], use_cache=False, **vision
    ).last_hidden_state


def attention_loss(attention: Any, read: Mapping[str, Any], batch: dict[str, Any], image_id: int) -> Any:
    """How far the guided heads are from looking at the object whose box is being written: cross-entropy of their
    attention, where the next token is a first or second digit.

    Left alone, the text model learns everything about an image that is in the average of its tokens, but does not find
    a single object in it within 1,000 steps (docs/experiments.md).

    Args:
        attention: the self-attention of the guided layer; `read`: what it was called with.
    """
    import torch
    import torch.nn.functional as F
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

    hidden = read["hidden_states"]
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    query = attention.q_norm(attention.q_proj(hidden).view(shape)).transpose(1, 2)
    key = attention.k_norm(attention.k_proj(hidden).view(shape)).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *read["position_embeddings"])
    rows, places = torch.nonzero(batch["cells"][:, 1:] >= 0, as_tuple=True)
    first = (batch["ids"] == image_id).int().argmax(1)
    target = first[rows] + batch["cells"][:, 1:][rows, places]
    hidden_from = ~batch["mask"][rows, 0, places]
    losses = []
    for head in GUIDED_HEADS:
        keys = key[:, head // attention.num_key_value_groups][rows]
        scores = (keys @ query[rows, head, places][..., None])[..., 0] * attention.scaling
        losses.append(F.cross_entropy(scores.masked_fill(hidden_from, -1e9), target))
    return torch.stack(losses).mean()


def teach(
    model: Any,
    rows_of: Callable[[int], list[Row]],
    seen: Any | None,
    deep: Any | None,
    *,
    steps: int,
    learning_rate: float,
    title: str,
    checkpoint: Path | None,
    log: Callable[[str], None],
) -> None:
    """Train all but the encoder on the rows of each step, with weighted cross-entropy over what the assistant writes.

    Args:
        seen, deep: the encoder's output (scenes, image tokens, hidden), its deep-stack features; None without images.
    """
    import torch
    import torch.nn.functional as F

    language = model.model.language_model
    weights = [*language.parameters()]
    recent: list[list[float]] = []
    attention, image_id = language.layers[GUIDED_LAYER].self_attn, model.config.image_token_id
    read: dict[str, Any] = {}
    hook = attention.register_forward_pre_hook(lambda _, __, given: read.update(given), with_kwargs=True)

    def loss_of(step: int) -> Any:
        rows = rows_of(step)
        batch = collate(rows, image_id, model.config.text_config.pad_token_id)
        index = [row.index for row in rows]
        vision = (None, None) if seen is None or deep is None else (seen[index], deep[index])
        hidden = hidden_states(model, batch, *vision)
        weight = batch["weights"][:, 1:]
        written = weight > 0
        logits = model.lm_head(hidden[:, :-1][written])
        each = F.cross_entropy(logits, batch["ids"][:, 1:][written], reduction="none")
        parts = batch["parts"][:, 1:][written]
        loss = (each * weight[written]).sum() / weight.sum()
        guide = torch.zeros(())
        if seen is not None and (batch["cells"] >= 0).any():
            guide = attention_loss(attention, read, batch, image_id)
        recent.append([each[parts == part].mean().item() for part in range(4)] + [guide.item()])
        if (step + 1) % REPORT_EVERY == 0:
            text, answer, first, second, looking = np.nanmean(recent[-REPORT_EVERY:], axis=0)
            log(
                f"{title} step {step + 1} of {steps}: loss of text {text:.3f}, short answers {answer:.3f}, "
                f"first digits {first:.3f}, second digits {second:.3f}, attention {looking:.3f}"
            )
        return loss + GUIDE_WEIGHT * guide

    train_resumably(language, weights, optimisers(weights, learning_rate, steps), steps, loss_of, checkpoint, log)
    hook.remove()
