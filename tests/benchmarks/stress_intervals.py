"""10^6 adversarial intervals per activation: violations, tightest margins, looseness and time. One thread.

Run from the root of the repository:
    python -m tests.benchmarks.stress_intervals [--count 1000000] [--sigma 0.1] [name ...]

Columns: rows whose low exceeds high; excess of sampled values, pair secants and centre secants over their ranges
beyond float64's own error (a violation when positive); violations among the 400 most suspect and 400 random rows in
exact or 200-bit arithmetic; largest distance from brute force on 2000 rows; seconds for each function.
"""

from __future__ import annotations

import argparse
import time

import torch

from smoothness.activations import activation, activation_facts, list_activations
from smoothness.activations.intervals.ranges import secant_range, slope_range, value_range
from smoothness.activations.mollification.mollify import mollify
from tests.activations.interval_checks import FORMULAS, VARIANTS, draw, exact_violations, looseness, sampled_excess

CHUNK = 50_000


def stress(name: str, count: int, sigma: float, exact: int = 400, compared: int = 2000) -> str:
    kind, parameters = VARIANTS.get(name, (name, {}))
    module = activation(kind, **parameters)
    facts = (mollify(module, sigma) if sigma else module).facts()
    formula = None if sigma else FORMULAS.get(name)
    seconds, excess, empty, violations, loose = [0.0] * 3, [-float("inf")] * 3, 0, 0, [0.0] * 3
    for start in range(0, count, CHUNK):
        at, lower, upper = draw(facts, min(CHUNK, count - start), seed=start)
        ranges = []
        for k, (function, arguments) in enumerate(
            ((value_range, (lower, upper)), (slope_range, (lower, upper)), (secant_range, (at, lower, upper)))
        ):
            begin = time.perf_counter()
            ranges.append(function(facts, *arguments))
            seconds[k] += time.perf_counter() - begin
        empty += sum(int((~(low <= high)).sum()) for low, high in ranges)
        found, rows, samples = sampled_excess(facts, *ranges, at, lower, upper, seed=start + 1)
        excess = [max(pair) for pair in zip(excess, found, strict=True)]
        share = max(1, exact * CHUNK // count)
        if not sigma:
            chosen = [*rows[:share].tolist(), *range(share)]
            violations += exact_violations(facts, formula, chosen, ranges, at, samples)[0]
        few = slice(max(1, compared * CHUNK // count))
        gaps = looseness(facts, [(low[few], high[few]) for low, high in ranges], at[few], lower[few], upper[few])
        loose = [max(pair) for pair in zip(loose, gaps, strict=True)]
    exactly = "-" if sigma else str(violations)
    numbers = [f"{e:9.1e}" for e in excess] + [f"{exactly:>4}"] + [f"{g:8.1e}" for g in loose]
    return " ".join([f"{facts.name:34}", f"{empty:3}", *numbers, *[f"{t:6.2f}" for t in seconds]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--sigma", type=float, default=0.0, help="mollify by this; 0 leaves the activation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'activation':34} low>high  excess: value  pairs  centre  exact  loose: value slope secant  seconds")
    elementwise = [name for name in list_activations() if activation_facts(name).elementwise]
    for name in options.names or [*elementwise, *VARIANTS]:
        print(stress(name, options.count, options.sigma), flush=True)


if __name__ == "__main__":
    main()
