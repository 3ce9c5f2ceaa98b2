"""The bracket on the reference network: values beside the best known, and what they cost.

    python -m tests.benchmarks.bench_lipschitz [--samples 100000]

CPU seconds of one thread; `outside` is the share of sampled Jacobians (margins of rounding aside) above the bound.
ART's CLEVER, auto_LiRPA and eclipse-nn stand in the notes of the table: none of them is needed to run this.
"""

import argparse
import time

import torch

import smoothness as sm
from smoothness._norms import operator_norm
from tests.bounds.random_networks import Case, jacobians, points_in_ball
from tests.bounds.reference import lipsdp_network, reference_network

# activation, norm, radius, pairs, best known upper bound elsewhere (value, by whom)
ROWS = (
    ("relu", "l2", 0.1, "ball", "2.897 auto_LiRPA"),
    ("tanh", "l2", 0.1, "ball", "2.387 auto_LiRPA (unsound)"),
    ("gelu", "l2", 0.1, "ball", "none sound"),
    ("softplus", "l2", 0.1, "ball", "none sound"),
    ("relu", "l2", 1.0, "ball", "4.659 eclipse-nn"),
    ("tanh", "l2", 1.0, "ball", "4.898 eclipse-nn"),
    ("relu", "l2", 1.0, "centre", "-"),
    ("tanh", "l2", 1.0, "centre", "-"),
    ("relu", "linf", 0.01, "ball", "5.827 auto_LiRPA"),
    ("relu", "linf", 0.1, "ball", "132 auto_LiRPA"),
    ("gelu", "linf", 0.1, "ball", "none sound"),
)


def timed(function, *arguments):
    """Result, CPU seconds and seconds on the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    found = function(*arguments)
    return found, time.process_time() - cpu, time.perf_counter() - clock


def steepest(model, x, norm, radius, samples):
    """Norms of sampled Jacobians."""
    case, points = Case("", model, x, norm, radius, None), 2000
    found = [
        operator_norm(jacobians(model, points_in_ball(case, 0, points, seed)), norm)
        for seed in range(max(1, samples // points))
    ]
    return torch.cat(found)


def outside(steep, upper):
    """Share of the sampled norms above the bound."""
    return float((steep > upper * (1 + 1e-9)).double().mean())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=4000)
    samples = parser.parse_args().samples
    torch.set_num_threads(1)
    found, cpu, _ = timed(sm.GlobalLipschitz("l2", effort="tight"), lipsdp_network())
    print(f"LipSDP network, global l2: {float(found.values):.6f} (published 36.482) in {cpu:.2f} s\n")
    print("activation norm radius pairs  | lower  fast (s)     standard (s) clock | ratio | outside | elsewhere")
    for activation, norm, radius, pairs, elsewhere in ROWS:
        model, x = reference_network(activation)
        settings = {"norm": norm, "radius": radius, "pairs": pairs}
        lower, _, _ = timed(sm.LipschitzLowerBound(**settings), model, x)
        fast, fast_cpu, _ = timed(sm.LipschitzUpperBound(effort="fast", **settings), model, x)
        upper, cpu, clock = timed(sm.LipschitzUpperBound(**settings), model, x)
        low, quick, value = (float(m.values) for m in (lower, fast, upper))
        share = outside(steepest(model, x, norm, radius, samples), value) if pairs == "ball" else float("nan")
        print(
            f"{activation:10} {norm:4} {radius:6g} {pairs:6} | {low:6.3f} {quick:6.3f} ({fast_cpu:.2f}) "
            f"{value:7.4f} ({cpu:5.2f}) {clock:5.1f} | {value / low:5.3f} | {share:7.1e} | {elsewhere}",
            flush=True,
        )
    model, x = reference_network("tanh")
    many = x + 0.1 * torch.randn(32, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, cpu, clock = timed(sm.LipschitzUpperBound(norm="l2", radius=0.1), model, many)
    print(f"\nbatch of 32, tanh, l2, r = 0.1, standard: {cpu / 32:.2f} CPU s ({clock / 32:.2f} s) an input")


if __name__ == "__main__":
    main()
