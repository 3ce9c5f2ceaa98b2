"""The example gallery: images, what an attack made of them, and the result; chosen by rule, not by eye."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from smoothness.report.answer import format_255

RULE = (
    "Chosen by rule: the first six correctly classified test examples of each network of the first seed, attacked at "
    "the radius nearest 8/255 by the first attack of the study that fools them, else by the last. From left to right: "
    "the example, the attacked example, and their difference around mid-grey (black and white: -ε and +ε)."
)


@dataclass(frozen=True)
class Shot:
    """One example: three images as data URIs, and the result in words."""

    original: str
    adversarial: str
    difference: str
    label: str
    result: str
    fooled: bool


@dataclass(frozen=True)
class Wall:
    """The examples of one setting, a row for each activation."""

    title: str
    epsilon: str
    rows: tuple[tuple[str, tuple[Shot, ...]], ...]


def walls(cells: Sequence[Mapping[str, Any]], examples: Mapping[str, Mapping[str, Tensor]]) -> list[Wall]:
    """Pictures of the first seed's examples, setting by setting.

    Args:
        cells: facts of the cells, with "cell", "activation", "setting", "seed" and "classes", their names.
        examples: cell label -> tensors of `smoothness.study.cells.CellResult.examples`.
    """
    found: dict[str, dict[str, Mapping[str, Tensor]]] = {}
    classes: dict[str, Sequence[str]] = {}
    seeds: dict[tuple[str, str], int] = {}
    for facts in cells:
        tensors = examples.get(str(facts["cell"]), {})
        if "inputs" not in tensors or not _is_image(tensors["inputs"]):
            continue
        setting, activation = str(facts["setting"]), str(facts["activation"])
        seed = int(str(facts["seed"]))
        if seed <= seeds.get((setting, activation), seed):
            seeds[setting, activation] = seed
            found.setdefault(setting, {})[activation] = tensors
            classes[setting] = facts["classes"]
    return [
        Wall(
            setting,
            format_255(float(next(iter(rows.values()))["epsilon"])),
            tuple((activation, tuple(_shots(tensors, classes[setting]))) for activation, tensors in rows.items()),
        )
        for setting, rows in found.items()
    ]


def _is_image(inputs: Tensor) -> bool:
    return inputs.ndim == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape) > 0


def _shots(tensors: Mapping[str, Tensor], classes: Sequence[str]) -> list[Shot]:
    def name(k: Tensor) -> str:
        return str(classes[int(k)]) if int(k) < len(classes) else f"class {int(k)}"

    epsilon = float(tensors["epsilon"])
    shots = []
    for x, changed, label, after in zip(
        tensors["inputs"], tensors["adversarial"], tensors["labels"], tensors["adversarial_predictions"], strict=True
    ):
        fooled = bool(after != label)
        scale = max(epsilon, float((changed - x).abs().max()))
        shots.append(
            Shot(
                _png(x),
                _png(changed),
                _png(0.5 + (changed - x) / (2 * scale)),
                name(label),
                f"{name(label)} → {name(after)}" if fooled else f"{name(label)}: held",
                fooled,
            )
        )
    return shots


def _png(image: Tensor) -> str:
    """An image of shape (1 or 3, height, width) with values in [0, 1] as a data URI."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    drawn = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
