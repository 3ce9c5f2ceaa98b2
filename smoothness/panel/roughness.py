"""Roughness beyond kinks, of the first few examples: variation, plateaus, curvature, the probe, explanations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smoothness._state import probing
from smoothness.analyzers import (
    AttributionStability,
    GradientKinks,
    GradientVariation,
    InputCurvature,
    PlateauFraction,
    SmoothnessProbe,
)
from smoothness.analyzers.frame_rows import finite_curvature_rows, probe_rows, variation_rows
from smoothness.analyzers.piecewise import affine_chain
from smoothness.measurement import Measurement
from smoothness.threat import ThreatModel

Of = Literal["margin", "logits"]

KINK_EXAMPLES, KINK_SEGMENTS, KINK_RADIUS = 50, 8, 0.5  # of sequential MLPs, as the studies have them
GRAPH_EXAMPLES = 10  # of other networks, with one segment each
UNITS = 50_000  # outputs of all modules for one example: seconds; a limit on time would change the numbers
_WORK = 1.2e9  # squared outputs of modules times segments
KINKS = 200  # on all segments of the variation: each takes some milliseconds in a convolutional network
VARIATION_EXAMPLES, VARIATION_SEGMENTS, VARIATION_RADIUS = 4, 2, 0.5
EXAMPLES = 8
PLATEAU_RADIUS, PLATEAU_POINTS = 0.1, 16
DISTANCE = 0.25  # of the finite curvature, input l2
PROBE_EXAMPLES, PROBE_RADIUS = 2, 0.5
ATTRIBUTION_SAMPLES = 4


def sizes(model: nn.Module, inputs: Tensor) -> int:
    """Numbers that all modules without children put out for one example.

    >>> sizes(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(2, 4))
    19
    """
    count = 0

    def add(_: nn.Module, __: object, output: Any) -> None:
        nonlocal count
        count += output.numel() if isinstance(output, Tensor) else 0

    with ExitStack() as stack:
        for module in model.modules():
            if not list(module.children()):
                stack.callback(module.register_forward_hook(add).remove)
        stack.enter_context(probing(model))
        stack.enter_context(torch.no_grad())
        model(inputs[:1].clone())
    return count


def check_size(model: nn.Module, inputs: Tensor) -> int:
    """`sizes`, where a panel has the time.

    Raises:
        ValueError: more than `UNITS`.
    """
    count = sizes(model, inputs)
    if count > UNITS:
        raise ValueError(f"{count:,} outputs of modules for one example; a panel looks at up to {UNITS:,}. The "
                         "analyzers themselves take any")  # fmt: skip
    return count


def kinks(model: nn.Module, inputs: Tensor, of: Of, seed: int) -> Iterable[Measurement]:
    """Kinks and jumps: of sequential MLPs on many segments, of other networks on a few.

    Raises:
        ValueError: a network too large for a panel.
        TypeError: a network that cannot be read.
    """
    try:
        affine_chain(model)
        examples, segments = KINK_EXAMPLES, KINK_SEGMENTS
    except TypeError:
        examples = max(2, min(GRAPH_EXAMPLES, int(_WORK / check_size(model, inputs) ** 2)))
        segments = 1
    return GradientKinks(segments, KINK_RADIUS, seed, of, keep_table=False)(model, inputs[:examples])


def variation(
    model: nn.Module, inputs: Tensor, of: Of, seed: int, found: Mapping[str, Measurement]
) -> Iterable[Measurement]:
    """Variation of gradient and value, where the kinks are few enough.

    Raises:
        ValueError: kinks that were not counted, or too many.
    """
    density = found.get("kink_density")
    if density is None:
        raise ValueError("kinks were not counted, and there may be very many")
    length = VARIATION_EXAMPLES * VARIATION_SEGMENTS * 2 * VARIATION_RADIUS
    expected = float(density.values.sum(dim=1).mean()) * length
    if expected > KINKS:
        raise ValueError(f"about {expected:,.0f} kinks on its segments; a panel follows up to {KINKS}. "
                         "`GradientVariation` takes any")  # fmt: skip
    analyzer = GradientVariation(VARIATION_SEGMENTS, VARIATION_RADIUS, of, seed=seed)
    return variation_rows(analyzer(model, inputs[:VARIATION_EXAMPLES]))


def plateaus(model: nn.Module, inputs: Tensor, of: Of, seed: int) -> Iterator[Measurement]:
    """Flat share of a ball by values and by gradients; saturated units by layer, where activations are modules."""
    check_size(model, inputs)
    analyzer = PlateauFraction("l2", PLATEAU_RADIUS, of, PLATEAU_POINTS, seed=seed)
    for one in analyzer(model, inputs[:EXAMPLES]):
        if one.coords.get("layer") != ("none",):
            yield one


def curvature(
    model: nn.Module, inputs: Tensor, labels: Tensor | None, of: Of, seed: int, distance: float | None
) -> Iterable[Measurement]:
    """At the point, where second derivatives exist, or over a finite distance."""
    check_size(model, inputs)
    x, y = inputs[:EXAMPLES], None if labels is None else labels[:EXAMPLES]
    found = InputCurvature(of, distance, seed=seed)(model, x, y)
    return found if distance is None else finite_curvature_rows(found)


def probe(model: nn.Module, inputs: Tensor, seed: int) -> Iterable[Measurement]:
    """Breaks found from values alone."""
    check_size(model, inputs)
    found = SmoothnessProbe(1, PROBE_RADIUS, seed=seed)(model, inputs[:PROBE_EXAMPLES])
    return (found.order, *probe_rows(found))


def explanations(
    model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, seed: int
) -> Iterable[Measurement]:
    """Stability of integrated gradients in the ball of the threat model; needs captum."""
    check_size(model, inputs)
    radius = float(threat.epsilon or 0.0)
    analyzer = AttributionStability("integrated_gradients", threat.norm, radius, ATTRIBUTION_SAMPLES, seed=seed)
    return analyzer(model, inputs[:EXAMPLES], labels[:EXAMPLES])
