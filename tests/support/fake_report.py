"""Fake inputs of the report page: invented scores, curves and samples in the shape a run writes them."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

CLASSES = ("harbour", "forest", "farmland", "runway", "village", "river", "stadium", "factory")
ROOFS = {"red": (176, 70, 58), "white": (206, 204, 198), "grey": (120, 126, 134)}
MODELS = (("base", "direct"), ("base", "tagged"), ("sft", "direct"), ("sft", "tagged"), ("a2grpo", "tagged"))
QUESTION_TYPES = {"vqa": ("presence", "comparison", "count", "area")}
SOURCES = {"scene_cls": "toy_aid", "vqa": "toy_rsvqa_lr", "caption": "toy_rsicd", "grounding": "toy_dior_rsvg"}
METRICS = {
    "scene_cls": ("accuracy",),
    "vqa": ("accuracy",),
    "caption": ("ROUGE-L", "CIDEr-D", "BLEU-4"),
    "grounding": ("acc@0.5", "acc@0.7", "mean_iou"),
}
SIDES = {"before": "sft", "after": "a2grpo"}
LEVEL = {"scene_cls": 0.56, "vqa": 0.55, "caption": 0.36, "grounding": 0.31}
GAIN = {"base": 0.0, "sft": 0.06, "a2grpo": 0.13}


def write(folder: Path, items: int = 48, seed: int = 3, side: int = 96) -> Path:
    """Fill `folder` with every file of the page's input; `items` gallery samples on images of `side` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    parts: dict[str, Any] = {
        "scores": scores(rng),
        "baselines": baselines(),
        "comparisons": comparisons(rng),
        "reasoning": reasoning(rng),
        "details": details(rng),
        "goals": goals(),
        "difficulty": difficulty(rng),
        "curves": curves(rng),
        "probes": probes(rng, side),
        "gallery": [sample(rng, i, side) for i in range(items)],
        "lineage": lineage(),
        "timings": timings(),
    }
    for name, value in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def probes(rng: random.Random, side: int) -> list[dict[str, Any]]:
    rows = []
    for item in (sample(rng, i, side) for i in range(4)):
        texts = ["", "water and a pier", "a pier with three ships"]
        steps = [{"step": 30 * i, "thought": text, "answer": f"a{i}", "reward": i / 2} for i, text in enumerate(texts)]
        kept = ("id", "task", "source", "question", "answer", "image_jpeg_base64")
        rows.append({name: item[name] for name in kept if name in item} | {"steps": steps})
    return rows


def scores(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for world, splits in (("toy", ("test_hard", "test", "val")), ("neon", ("test",))):
        for split in splits:
            for task, metrics in METRICS.items():
                if world == "neon" and task == "caption":
                    continue
                n = {"toy": 270, "neon": 84}[world] * (4 if split == "test_hard" else 1)
                easier = {"test_hard": 0.0, "test": 0.14, "val": 0.12}[split] - (0.12 if world == "neon" else 0.0)
                for model, mode in MODELS:
                    kinds = [None, *QUESTION_TYPES.get(task, ())] if world == "toy" else [None]
                    for metric in (*metrics, "well_formed"):
                        for kind in kinds if metric == metrics[0] else [None]:
                            size = n if kind is None else n // 4
                            value = LEVEL[task] + easier + GAIN[model] + rng.gauss(0, 0.012)
                            value *= {"acc@0.7": 0.6, "CIDEr-D": 2.6, "BLEU-4": 0.7}.get(metric, 1.0)
                            if metric == "well_formed":
                                value = 1.0 if mode == "direct" else {"base": 0.93, "sft": 0.97}.get(model, 0.999)
                            half = 1.96 * math.sqrt(max(1e-4, min(value, 1) * (1 - min(value, 0.99)) / size))
                            row = {"model": model, "mode": mode, "split": split, "world": world, "task": task}
                            row |= {"source": None, "question_type": kind, "metric": metric, "n": size}
                            low, high = max(0.0, value - half), value + half
                            high = min(1.0, high) if value <= 1 else high
                            rows.append(row | {"value": value, "low": low, "high": high})
                            if world == "toy" and metric == metrics[0] and kind is None:
                                rows.append({**rows[-1], "source": SOURCES[task]})
    return rows


def baselines() -> list[dict[str, Any]]:
    rows = []
    for world, split in (("toy", "test_hard"), ("toy", "test"), ("toy", "val"), ("neon", "test")):
        for task, chance, majority in (("scene_cls", 0.125, 0.16), ("vqa", 0.41, 0.48), ("grounding", 0.04, 0.06)):
            metric = METRICS[task][0]
            row = {"split": split, "world": world, "task": task, "question_type": None, "metric": metric, "n": 270}
            rows.append({**row, "chance": chance, "majority": majority})
    return rows


def comparisons(rng: random.Random) -> list[dict[str, Any]]:
    """SFT and A²GRPO on the toy world, tagged: a sure gain on scenes, none on the others."""
    rows = []
    for task, metrics in METRICS.items():
        gain = 0.07 if task == "scene_cls" else 0.01
        row = {"first": {"model": "sft", "mode": "tagged"}, "second": {"model": "a2grpo", "mode": "tagged"}}
        row |= {"split": "test_hard", "world": "toy", "protocol": "strict", "task": task, "source": None}
        row |= {"question_type": None, "metric": metrics[0], "headline": True, "before": 0.5, "after": 0.5 + gain}
        rows.append(row | {"difference": gain, "low": gain - 0.04, "high": gain + 0.04, "n": 1080})
        rows[-1] |= {"p_value": 0.0004 if gain > 0.05 else 0.4, "units": 540}
        if task == "vqa":
            rows.append({**rows[-1], "question_type": "presence", "n": 270})
    return rows


def reasoning(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for model in ("sft", "a2grpo"):
        helped = {"first": {"model": model, "mode": "forced"}, "second": {"model": model, "mode": "tagged"}}
        place = {"split": "test_hard", "world": "toy", "protocol": "strict", "task": "vqa", "metric": "accuracy"}
        helped |= {
            **place,
            "before": 0.5,
            "after": 0.58,
            "difference": 0.08,
            "low": 0.03,
            "high": 0.13,
            "p_value": 0.004,
        }
        row = {
            **place,
            "model": model,
            "mode": "tagged",
            "n": 1080,
            "n_with_thought": 1077,
            "share_with_thought": 0.997,
        }
        row |= {"words": {"mean": 24.1, "median": 23.0, "p95": 38.0}, "distinct_n": {"1": 0.02, "2": 0.11, "3": 0.2}}
        rows.append(row | {"agreement": 0.91, "help": helped | {"n": 200}})
    return rows


def details(rng: random.Random) -> list[dict[str, Any]]:
    place = {"model": "a2grpo", "mode": "tagged", "split": "test_hard", "world": "toy", "protocol": "strict"}
    matrix = [[rng.randrange(40) if i == j else rng.randrange(4) for j in range(9)] for i in range(8)]
    group = {"n": 33, "metrics": {"accuracy": 0.6}, "intervals": {"accuracy": [0.43, 0.77]}}
    scenes = {"task": "scene_cls", "n": 270, "groups": {"class": dict.fromkeys(CLASSES, group)}}
    scenes |= {"confusion": {"classes": list(CLASSES), "columns": [*CLASSES, "(other)"], "matrix": matrix}}
    bins = [
        {"low": k / 4, "high": (k + 1) / 4, "n": 30 * (k + 1), "confidence": k / 4 + 0.2, "accuracy": k / 5 + 0.1}
        for k in range(4)
    ]
    sampled = {"n_questions": 300, "k": [8, 8], "vote": {"value": 0.61, "interval": [0.55, 0.66], "n": 300}}
    sampled |= {"pass_at_k": {str(k): {"value": 0.5 + k / 50, "interval": None, "n": 300} for k in (1, 2, 4, 8)}}
    sampled |= {"calibration": {"n": 300, "bins": bins, "expected_calibration_error": 0.12}}
    boxes = {"task": "grounding", "n": 270, "groups": {"size": {"S": group, "L": group, "M": group}}}
    boxes |= {"diagnosis": {"conventions": {"norm1000": {"acc@0.5": 0.4}, "pixels": {"acc@0.5": 0.1}}}}
    questions = {"task": "vqa", "n": 1080, "self_consistency": sampled, "problems": {"prediction_missing": 2}}
    return [{**place, **part} for part in (scenes, questions, boxes)]


def goals() -> list[dict[str, Any]]:
    return [
        {
            "name": "Reasoning lifts the hard split",
            "wanted": "at least +3 points",
            "reached": "+6.4",
            "ok": True,
            "note": "mean of four tasks, three seeds",
        },
        {"name": "Completions well formed", "wanted": "at least 99 %", "reached": "99.9 %", "ok": True, "note": ""},
        {"name": "Thoughts stay", "wanted": "at least 20 words", "reached": 24.3, "ok": True, "note": "after RL"},
        {"name": "Real imagery above chance", "wanted": "interval above chance", "reached": None, "ok": None},
        {
            "name": "Whole pipeline on two cores",
            "wanted": "at most 25 min",
            "reached": "27 min 10 s",
            "ok": False,
            "note": "RL took 9 minutes of it",
        },
    ]


def difficulty(rng: random.Random) -> dict[str, Any]:
    histograms: dict[str, Any] = {}
    bands = {}
    for task, total in (("scene_cls", 5600), ("vqa", 6400), ("caption", 900), ("grounding", 2400)):
        raw = [abs(i - 3.1) ** 1.6 + 1 + rng.random() for i in range(9)]
        counts = [round(total * value / sum(raw)) for value in raw]
        histograms[task] = {"edges": [round((i - 0.5) / 8, 4) for i in range(10)], "counts": counts}
        hard = sum(counts[1:5])
        bands[task] = {
            "easy": sum(counts[6:]),
            "hard_learnable": hard,
            "hard_unsolved": counts[0] // 2,
            "suspect": counts[0] // 9,
            "unused": sum(counts) - sum(counts[6:]) - hard - counts[0] // 2 - counts[0] // 9,
        }
    return {**histograms, "bands": bands}


def curves(rng: random.Random) -> dict[str, Any]:
    sft = [{"step": s, "loss": 0.35 + 2.4 * math.exp(-s / 8) + rng.gauss(0, 0.05)} for s in range(1, 41)]
    rl = []
    for s in range(1, 61):
        up = 1 - math.exp(-s / 25)
        answer = 0.46 + 0.13 * up + rng.gauss(0, 0.035)
        thinking = 0.30 + 0.14 * up + rng.gauss(0, 0.02)
        row = {"step": s, "reward": answer + 0.5 * thinking, "answer_reward": answer, "thinking_reward": thinking}
        row |= {"answer_kl": 0.002 + 0.02 * up + abs(rng.gauss(0, 0.002)), "well_formed": min(1.0, 0.94 + 0.06 * up)}
        row |= {"thought_words": 18 + 7 * up + rng.gauss(0, 0.7), "dropped_groups": max(0, 0.42 - 0.1 * up)}
        rl.append(row | {"loss": rng.gauss(0, 0.02), "learning_rate": 1e-4})
    return {"sft": sft, "a2grpo": rl}


def sample(rng: random.Random, index: int, side: int = 96) -> dict[str, Any]:
    task = ("grounding", "scene_cls", "vqa", "caption")[index % 4]
    image, box, roof = scene(rng, side)
    kind, other = rng.sample(CLASSES, 2)
    was, now = rng.random() < 0.5, rng.random() < 0.68
    thought = (
        f"The image shows {rng.choice(('a grey area', 'open ground', 'two roads', 'green fields'))} in the "
        f"{rng.choice(('north', 'south', 'east', 'west'))} and {rng.randint(2, 6)} bright roofs near the centre. "
        f"Their edges are straight and parallel, so this looks like {kind} rather than {other}."
    )
    row: dict[str, Any] = {"id": f"{rng.getrandbits(128):032x}", "task": task, "source": SOURCES[task]}
    row |= {"split": rng.choice(("test", "test_hard")), "image_jpeg_base64": jpeg(image)}
    row |= {"width": side, "height": side, "box": None, "question_type": "presence" if task == "vqa" else None}
    if task == "grounding":
        row |= {"question": f"Locate the {roof} building that nothing covers. Answer with its box.", "box": box}
        row["answer"] = str([round(v) for v in box])
        for name, good in (("before", was), ("after", now)):
            near = [v + rng.gauss(0, 1.2 if good else 14) for v in box]
            reward = round(rng.uniform(0.55, 0.95) if good else rng.uniform(0, 0.45), 3)
            row[name] = output(thought, str([round(v / side * 1000) for v in near]), reward, near)
    elif task == "caption":
        row |= {"question": "Describe the image in one sentence.", "answer": f"A {kind} beside a river with boats."}
        row["before"] = output("", f"A {other} with trees.", rng.uniform(0.1, 0.4))
        row["after"] = output(thought, f"A {kind} beside a river.", rng.uniform(0.2, 0.8))
    else:
        question = f"Classify the image into one of these classes: {', '.join(CLASSES)}.\nAnswer with one class name."
        row |= {"question": question if task == "scene_cls" else f"Is there a {kind} north of the road?"}
        row["answer"] = kind if task == "scene_cls" else "yes"
        wrong = other if task == "scene_cls" else "no"
        for name, good in (("before", was), ("after", now)):
            row[name] = output(thought, row["answer"] if good else wrong, float(good))
    answers = [{**row.pop(name), "model": model, "mode": "tagged"} for name, model in SIDES.items()]
    answers[0]["flags"] = ["malformed"] if index % 9 == 0 else []
    return row | {"answers": answers}


def output(thought: str, answer: str, reward: float, box: list[float] | None = None) -> dict[str, Any]:
    raw = f"{thought} <answer>{answer}</answer>" if thought else answer
    return {"thought": thought, "answer": answer, "raw": raw, "reward": reward, "box": box}


def scene(rng: random.Random, side: int) -> tuple[Image.Image, list[float], str]:
    """An image of fields, a road and buildings; the box and colour of the building drawn last."""
    image = Image.new("RGB", (side, side), rng.choice(((96, 124, 78), (150, 140, 105), (112, 118, 92))))
    draw = ImageDraw.Draw(image)
    unit = side / 96
    for _ in range(9):
        x, y = rng.uniform(-20, 90) * unit, rng.uniform(-20, 90) * unit
        tone = rng.choice(((74, 106, 60), (168, 156, 110), (128, 140, 96), (60, 92, 110)))
        draw.rectangle([x, y, x + rng.uniform(15, 45) * unit, y + rng.uniform(12, 40) * unit], fill=tone)
    draw.line(
        [0, rng.uniform(20, 70) * unit, side, rng.uniform(20, 70) * unit], fill=(176, 174, 168), width=int(5 * unit)
    )
    box, roof = [0.0] * 4, ""
    for _ in range(6):
        x, y = rng.uniform(4, 70) * unit, rng.uniform(4, 70) * unit
        box = [x, y, x + rng.uniform(10, 22) * unit, y + rng.uniform(10, 22) * unit]
        draw.rectangle([v + 2 * unit for v in box], fill=(50, 52, 48))
        roof = rng.choice(list(ROOFS))
        draw.rectangle(box, fill=ROOFS[roof])
    return image, box, roof


def jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def lineage() -> dict[str, Any]:
    return {
        "profile": "cpu-toy",
        "seed": 7,
        "git": {"commit": "7d1f0c2a9be44a0f8f0f7a3d2c1b0a9988776655", "dirty": False},
        "data": {f"data/corpus/{source}": f"{i:032x}.dir" for i, source in enumerate(SOURCES.values(), 91)},
        "models": {"base": "models/tiny-qwen3-vl", "a2grpo": "runs/a2grpo-41be/checkpoint-60"},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "ms-swift": "4.6.0", "transformers": "5.18.1"},
        "params": {
            "sft": {"steps": 40, "batch_size": 32, "learning_rate": 3e-4, "tuner": "full"},
            "a2grpo": {"steps": 60, "group_size": 8, "beta": 0.04, "gate_k": 10, "extra": {}, "seeds": [7, 8, 9]},
        },
        "hardware": {"cores": 2, "gpu": None},
    }


def timings() -> list[dict[str, Any]]:
    names = ("ingest", "raw", "filter", "sample", "select", "sft", "a2grpo", "evaluate", "report")
    seconds = (21.4, 8.2, 96.0, 143.7, 4.1, 38.9, 551.0, 342.5, 2.8)
    return [{"stage": name, "seconds": value} for name, value in zip(names, seconds, strict=True)]
