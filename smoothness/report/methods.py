"""The methods paragraph, sentence by sentence, from the settings and what the frame holds."""

from __future__ import annotations

import pandas as pd

from smoothness.analyzers.masking import family
from smoothness.report.answer import format_255, plural
from smoothness.report.figures.robustness import architectures_of
from smoothness.report.provenance import scrub, values_of
from smoothness.report.roughness_methods import roughness_methods, shown
from smoothness.report.style import order_activations
from smoothness.report.success import FAMILIES, tested_epsilons
from smoothness.study import Run
from smoothness.study.attack_settings import CascadeSettings
from smoothness.study.instruments import AuditSettings, JacobianSettings, KinkSettings
from smoothness.threat import ThreatModel

# Quantities that stand in the report's figures and tables.
_SHOWN = {
    "attack_success",
    "boundary_distance_l1",
    "boundary_distance_l2",
    "boundary_distance_linf",
    "clean_accuracy",
    "correct",
    "figure_trustworthy",
    "gradient_masked",
    "input_dimensions",
    "jacobian_norm",
    "kink_density",
    "margin",
    "slope_jump",
    "value_jump",
}
_NORMS = {"linf": "max-norm", "l2": "l2", "l1": "l1"}


def norm_name(norm: str) -> str:
    """How a norm is called in a sentence."""
    return _NORMS.get(norm, norm)


def methods(run: Run, frame: pd.DataFrame) -> list[str]:
    """Data and networks, training, attacks, smoothness, statistics.

    Args:
        run: for its settings and cells.
        frame: valid rows.
    """
    sentences = [*_networks(run, frame), *_attacks(run, frame), *_smoothness(run, frame)]
    sentences += [
        "Every figure is first aggregated over examples within a seed, then given as mean ± standard deviation over "
        "seeds (divisor n − 1); examples are never counted as replicates."
    ]
    return [scrub(sentence) for sentence in sentences]


def _networks(run: Run, frame: pd.DataFrame) -> list[str]:
    training = run.config.training
    architectures, activations = ", ".join(architectures_of(frame)), ", ".join(order_activations(frame["activation"]))
    rates = values_of(cell.get("learning_rate") for cell in run.cells)
    varied = run.config.factors.epochs
    epochs = f"{values_of(varied)} epochs" if varied else plural(training.epochs, "epoch")
    tuned = f" (chosen on validation data from {values_of(training.learning_rates)})"
    return [
        f"On {', '.join(run.config.data_labels)}, each architecture ({architectures}) was trained with each "
        f"activation ({activations}) from {plural(frame['seed'].nunique(), 'seed')}; "
        "within a seed the initial weights and the batches are the same for all.",
        f"Training: {epochs} of batches of {training.batch_size}, learning rate {rates}"
        f"{tuned if len(training.learning_rates) > 1 else ''}, weight decay {training.weight_decay:g}, gain of the "
        f"initial weights {values_of(cell.get('gain') for cell in run.cells)}; activations without a useful gradient "
        f"were trained through a {training.surrogate} surrogate of width {training.surrogate_width:g}.",
        *_adversary(run),
    ]  # fmt: skip


def _adversary(run: Run) -> list[str]:
    training = run.config.training
    adversary = training.recipe(ThreatModel(run.config.threat.norm), epochs=1, seed=0, threads=1).adversarial
    if adversary is None:
        return []
    weight = f" and weight {adversary.beta:g} on the divergence" if adversary.method == "trades" else ""
    return [
        f"Training was adversarial: {adversary.method.upper()} in {norm_name(run.config.threat.norm)} balls of radius "
        f"{format_255(adversary.epsilon)} with {plural(adversary.steps, 'step')}{weight}."
    ]


def _attacks(run: Run, frame: pd.DataFrame) -> list[str]:
    rows = frame[frame["quantity"] == "attack_success"]
    if rows.empty:
        return []
    attacks = sorted(rows["attack"].dropna().unique(), key=lambda name: (FAMILIES.index(family(name)), name))
    counts = rows.groupby(["activation", "architecture", "seed"])["example"].nunique()
    many = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return [
        f"{many} test examples per network were attacked with {', '.join(f'{a} ({family(a)})' for a in attacks)} in "
        f"{norm_name(run.config.threat.norm)} balls of radius ε = "
        f"{', '.join(format_255(e) for e in tested_epsilons(frame))}; every success was checked on the real forward "
        "pass.",
        "Success counts only examples classified correctly without an attack; an example fooled at one ε counts as "
        "fooled at every larger one, and under the union when any attack fooled it.",
        "Native gradients are called masked when more than half of the input gradients are exactly zero, when more "
        "than half contradict differences of the forward pass, or when attacks that do not use them are ahead by more "
        "than 5 points at some ε; the activation's name plays no part.",
        *_cascade(run),
    ]


def _cascade(run: Run) -> list[str]:
    sentences = []
    for attack in run.config.attacks:
        if isinstance(attack, CascadeSettings):
            where = f" at {', '.join(map(format_255, attack.epsilons))}" if attack.epsilons else ""
            sentences.append(
                f"The cascade (effort {attack.effort}){where} runs noise, APGD, APGD through surrogates, continuation "
                "through mollified activations, transfer, evolution gradients and Square, each on what the others "
                "left; which stages an example gets depends on what is measured of its gradients alone."
            )
    for analyzer in run.config.analyzers:
        if isinstance(analyzer, AuditSettings):
            seeds = f" of seed {values_of(analyzer.seeds)}" if analyzer.seeds else ""
            sentences.append(
                f"The audit looked at up to {plural(analyzer.examples or run.config.data.examples, 'example')} of the "
                f"networks{seeds} at {format_255(analyzer.epsilon)}."
            )
    return sentences


def _smoothness(run: Run, frame: pd.DataFrame) -> list[str]:
    sentences = []
    measured = set(frame["quantity"])
    plain = {analyzer.kind: analyzer for analyzer in run.config.analyzers if not analyzer.label}
    jacobian, kinks = plain.get("jacobian"), plain.get("kinks")
    if "jacobian_norm" in measured and isinstance(jacobian, JacobianSettings):
        sentences.append(
            "Jacobian norms are those of the input gradient of the margin, exact at each example, against "
            f"{norm_name(jacobian.norm)} perturbations."
        )
    if "kink_density" in measured and isinstance(kinks, KinkSettings):
        many = plural(kinks.examples, "example") if kinks.examples else "all examples"
        sentences.append(
            f"Kinks and jumps were enumerated on {plural(kinks.segments, 'random segment')} of half-length "
            f"{kinks.radius:g} (input l2) through each of at most {many} "
            f"({', '.join(kinks.architectures or ('all architectures',))}); their densities estimate the mean over "
            "all directions."
        )
    sentences += roughness_methods(run, sorted(measured))
    more = sorted(name for name in measured - _SHOWN if not shown(name))
    if more:
        sentences.append(f"Also measured, and only in the frame of all rows: {', '.join(more)}.")
    return [
        *sentences,
        "Normalised figures divide by the example's margin (true logit minus the largest other), over correctly "
        "classified examples: this removes the scale of the logits.",
    ]
