"""How roughness was measured, sentence by sentence, from the settings of the analyzers that did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smoothness.report.answer import plural
from smoothness.study import Run
from smoothness.study.analyzer_base import AnalyzerBase
from smoothness.study.roughness_settings import (
    AttributionSettings,
    CurvatureSettings,
    PlateauSettings,
    ProbeSettings,
    RegionSettings,
    VariationSettings,
)

# Quantities of this subject that stand in the report's figures; those of explanations with any label.
SHOWN = frozenset(
    {
        "finite_normalised_curvature", "flat_fraction", "gradient_concentration", "gradient_curvature_part",
        "gradient_kink_part", "layer_gradient_concentration", "layer_value_jump_share", "local_linearity_error",
        "normalised_curvature", "probe_curvature_jumps", "probe_finds_none", "probe_kinks", "probe_value_jumps",
        "saturation", "slice_flat", "slice_regions", "value_jump_part", "value_jump_share", "value_variation",
        "zero_gradient_fraction",
    }
)  # fmt: skip
EXPLANATIONS = frozenset(
    f"attribution_{name}" for name in ("infidelity", "rank_correlation", "sensitivity", "top_overlap")
)
_NORMS = {"linf": "max-norm", "l2": "l2", "l1": "l1"}
_METHODS = {"saliency": "saliency", "integrated_gradients": "integrated gradients", "smooth_grad": "SmoothGrad"}


def shown(quantity: str) -> bool:
    """Whether a quantity of the frame stands in a figure of roughness.

    >>> shown("saturation"), shown("attribution_infidelity:saliency"), shown("input_slope")
    (True, True, False)
    """
    return quantity in SHOWN or quantity.partition(":")[0] in EXPLANATIONS


def roughness_methods(run: Run, measured: Sequence[str]) -> list[str]:
    """A sentence or two for each quantity that the figures show.

    Args:
        run: for its settings.
        measured: quantities of the frame.
    """
    if not any(map(shown, measured)):
        return []
    sentences = [said for analyzer in run.config.analyzers for said in _says(analyzer)]
    return list(dict.fromkeys(sentences))  # what two analyzers of a kind share, once


def _says(analyzer: object) -> list[str]:
    if isinstance(analyzer, AttributionSettings):
        return _attribution(analyzer)
    if getattr(analyzer, "label", ""):  # under other names, and in no figure
        return []
    if isinstance(analyzer, VariationSettings):
        return _variation(analyzer)
    if isinstance(analyzer, PlateauSettings):
        return _plateaus(analyzer)
    if isinstance(analyzer, CurvatureSettings):
        return _curvature(analyzer)
    if isinstance(analyzer, ProbeSettings):
        return _probe(analyzer)
    return _regions(analyzer) if isinstance(analyzer, RegionSettings) else []


def measured_at(analyzers: Iterable[object]) -> dict[str, str]:
    """Kind of analyzer (of explanations "attribution:label") -> norm, radius and distance, for a caption."""
    found: dict[str, list[str]] = {}
    for one in analyzers:
        where = _where(one)
        if isinstance(one, AttributionSettings):
            method, ball = _METHODS[one.method], f"{_NORMS[one.norm]} balls of radius {one.radius:.3g}"
            found.setdefault(f"attribution:{one.label}", []).append(f"{method}, {ball}{where}")
        elif getattr(one, "label", ""):
            continue
        elif isinstance(one, VariationSettings | ProbeSettings):
            found.setdefault(one.kind, []).append(f"segments of half-length {one.radius:g} in input l2{where}")
        elif isinstance(one, PlateauSettings):
            found.setdefault(one.kind, []).append(f"{_NORMS[one.norm]} balls of radius {one.radius:g}{where}")
        elif isinstance(one, CurvatureSettings):
            ball = f"{_NORMS[one.norm]} balls of radius {one.radius:g}"
            found.setdefault(one.kind, []).append(f"a distance of {one.scale:g} in input l2; {ball}{where}")
    return {
        kind: f" {'By' if ':' in kind else 'Measured over'} {'; '.join(dict.fromkeys(parts))}."
        for kind, parts in found.items()
    }


def _where(settings: object) -> str:
    architectures = getattr(settings, "architectures", None)
    return f" ({', '.join(architectures)})" if architectures else ""


def _of_examples(settings: AnalyzerBase) -> str:
    many = "all examples" if settings.examples is None else f"at most {plural(settings.examples, 'example')}"
    return f"{many} ({', '.join(settings.architectures)})" if settings.architectures else many


def _variation(settings: VariationSettings) -> list[str]:
    of = {"margin": "the margin", "logits": "the logits", "layers": "each activation's output"}.get(
        settings.of, f"the output of {settings.of.removeprefix('layer:')}"
    )
    return [
        f"Variation of {of} was measured on {plural(settings.segments, 'random segment')} of half-length "
        f"{settings.radius:g} (input l2) through each of {_of_examples(settings)}.",
        "The gradient's variation on a segment is the sum of the jumps of the directional derivative and the "
        "integral of the second one's magnitude between them; the value's is the sum of its jumps and the "
        "integral of the derivative's magnitude; both in float64. The local scale of a place is 0 at a kink and "
        "else the length of the interval on which the second derivative stays above half its value there.",
    ]


def _plateaus(settings: PlateauSettings) -> list[str]:
    return [
        f"Plateaus: at {plural(settings.points, 'point')} drawn uniformly from {_NORMS[settings.norm]} balls of "
        f"radius {settings.radius:g} around each of {_of_examples(settings)}, the margin counts as flat where it is "
        "the same to the bit at a millionth of the radius in random directions, and units as saturated where their "
        "activation's slope is exactly 0."
    ]


def _curvature(settings: CurvatureSettings) -> list[str]:
    return [
        "Curvature at a point is the Hessian's eigenvalue of largest magnitude of the margin, by Lanczos iterations "
        f"with a residual certificate, at each of {_of_examples(settings)}; over a finite distance it is the largest "
        f"second difference at {settings.scale:g} (input l2) over directions that are drawn and improved. The "
        f"departure from the tangent was searched in {_NORMS[settings.norm]} balls of radius {settings.radius:g} by "
        "projected ascent."
    ]


def _probe(settings: ProbeSettings) -> list[str]:
    return [
        f"The probe saw values alone, at most {settings.budget} on each of "
        f"{plural(settings.segments, 'random segment')} of half-length {settings.radius:g} (input l2) through each of "
        f"{_of_examples(settings)}; the order of a break is -1 for a value jump, 0 for a kink, 1 for a jump of the "
        "curvature."
    ]


def _regions(settings: RegionSettings) -> list[str]:
    return [
        f"The plane through the first three examples of the sample was evaluated on {settings.resolution} × "
        f"{settings.resolution} points in float64; linear regions were counted exactly in MLPs of few units with "
        "piecewise affine activations."
    ]


def _attribution(settings: AttributionSettings) -> list[str]:
    return [
        f"Explanations by {_METHODS[settings.method]} (captum) of the label's logit were compared with those at "
        f"{plural(settings.samples, 'random offset')} in {_NORMS[settings.norm]} balls of radius "
        f"{settings.radius:.3g} around each of {_of_examples(settings)}."
    ]
