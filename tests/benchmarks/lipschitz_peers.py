"""Upper bounds beside eclipse-nn's, CLEVER beside ART's: value, time, share of sampled Jacobians above a bound.

eclipse-nn (0.1.7, MIT) and the adversarial-robustness-toolbox (1.20.1, MIT) are no dependencies: install them into an
environment of their own beside this package. auto_LiRPA 0.3, the newest on PyPI, does not import with torch >= 2.

Run: python -m tests.benchmarks.lipschitz_peers [--samples 100000]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings

import numpy as np
import torch
from torch import nn

import smoothness as sm
from tests.benchmarks.bench_lipschitz import outside, steepest, timed
from tests.bounds.reference import reference_network

ROWS = (("relu", 0.1), ("tanh", 0.1), ("softplus", 0.1), ("silu", 0.1), ("relu", 1.0), ("tanh", 1.0))
ALGORITHMS = ("CF", "Fast", "Acc")


def eclipse(model: nn.Sequential, x: torch.Tensor, activation: str, radius: float, algorithm: str) -> float:
    """Their local constant; NaN with its reason printed where it fails."""
    from eclipse_nn import LipConstEstimator  # type: ignore[import-not-found]

    layers = [m for m in model if isinstance(m, nn.Linear)]
    plain = [nn.Tanh() for _ in layers[:-1]]  # the module is read for its weights alone
    pairs = zip(layers, [*plain, nn.Identity()], strict=True)
    same = nn.Sequential(*[m for pair in pairs for m in pair][:-1])
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value, _, status = LipConstEstimator(model=same).estimate_gen_local(
                center=x[0], epsilon=radius, actv=activation, algo=algorithm
            )
    except Exception as error:  # whatever a peer raises
        print(f"    eclipse-nn {algorithm}: {type(error).__name__}: {str(error)[:100]}")
        return float("nan")
    return float(value) if status == 0 else float("nan")


def bounds(samples: int) -> None:
    """Local constants in the 2-norm, pairs in the ball, on the reference network."""
    print("activation radius who              | value    CPU s | outside")
    for activation, radius in ROWS:
        model, x = reference_network(activation)
        found = {}
        for effort in ("fast", "standard"):
            upper = sm.LipschitzUpperBound(norm="l2", radius=radius, effort=effort)
            upper(model, x)
            measured, seconds, _ = timed(upper, model, x)
            found[f"ours, {effort}"] = float(measured.values), seconds
        for algorithm in ALGORITHMS:
            value, seconds, _ = timed(eclipse, model, x, activation, radius, algorithm)
            found[f"eclipse-nn {algorithm}"] = value, seconds
        steep = steepest(model, x, "l2", radius, samples)
        for who, (value, seconds) in found.items():
            share = outside(steep, value) if value == value else float("nan")
            print(f"{activation:10} {radius:4g} {who:18} | {value:8.4f} {seconds:7.3f} | {share:.1e}", flush=True)


def clever(batches: int, size: int) -> None:
    """CLEVER scores of both, on one input each."""
    from art.estimators.classification import PyTorchClassifier  # type: ignore[import-not-found]
    from art.metrics import clever_u  # type: ignore[import-not-found]

    print("\nactivation norm | ours    CPU s | ART     CPU s | certified radius")
    for activation in ("relu", "tanh"):
        model, x = reference_network(activation)
        model, x = model.float(), x.float()
        for norm, order in (("l2", 2), ("linf", np.inf)):
            ours, seconds, _ = timed(sm.Clever(norm=norm, radius=1.0, batches=batches, samples=size), model, x)
            wrapped = PyTorchClassifier(model, nn.CrossEntropyLoss(), (64,), 10, device_type="cpu")
            np.random.seed(0)  # noqa: NPY002  (theirs draws from the global generator)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs, other, _ = timed(clever_u, wrapped, x[0].numpy(), batches, size, 1.0, order)
            proved = float(sm.CertifiedRadius(norm=norm)(model.double(), x.double()).values)
            model.float()
            print(
                f"{activation:10} {norm:4} | {float(ours.values):.4f} {seconds:7.2f} | "
                f"{float(theirs):.4f} {other:7.2f} | {proved:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100_000)
    torch.set_num_threads(1)
    bounds(parser.parse_args().samples)
    clever(50, 128)
