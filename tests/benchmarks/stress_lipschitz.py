"""Many random networks: does a sampled Jacobian or quotient ever exceed a certified bound?

    python -m tests.benchmarks.stress_lipschitz --first 0 --count 10000

Prints every violation, and a summary; exits with 1 when there was one.
"""

import argparse
import sys
import time
from collections import Counter

import torch

from smoothness.analyzers.lipschitz_lower import LipschitzLowerBound
from smoothness.analyzers.lipschitz_upper import LipschitzUpperBound
from tests.bounds.random_networks import random_case, sampled_constants


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--lower", type=int, default=10, help="search with LipschitzLowerBound on every k-th network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    violations, tested, winners, infinite, start = 0, 0, Counter(), 0, time.process_time()
    for seed in range(arguments.first, arguments.first + arguments.count):
        case = random_case(seed)
        samples = [sampled_constants(case, row) for row in range(len(case.x))]
        of, effort = ("logits", "margin")[seed % 2], ("fast", "standard", "standard", "tight")[seed // 2 % 4]
        for pairs in ("ball", "centre"):
            settings = {"norm": case.norm, "radius": case.radius, "of": of, "pairs": pairs, "bounds": case.bounds}
            upper = LipschitzUpperBound(effort=effort, **settings)(case.model, case.x)
            winners.update(upper.details["winner"])
            for row, value in enumerate(upper.values.tolist()):
                tested += 1
                infinite += value == float("inf")
                steep, ball, centre = samples[row][of]
                largest = max(steep, ball, centre) if pairs == "ball" else centre
                if not largest <= value * (1 + 1e-9):
                    violations += 1
                    print(
                        f"VIOLATION {case.label} {of} {pairs} {effort} row {row}: {largest!r} > {value!r}", flush=True
                    )
            if seed % arguments.lower == 0:
                lower = LipschitzLowerBound(**settings, starts=3, steps=15, seed=seed)(case.model, case.x)
                for low, up in zip(lower.values.tolist(), upper.values.tolist(), strict=True):
                    if low > up * (1 + 1e-9):
                        violations += 1
                        print(
                            f"VIOLATION of the search {case.label} {of} {pairs} {effort}: {low!r} > {up!r}", flush=True
                        )
    print(f"{arguments.count} networks from seed {arguments.first}: {tested} bounds, {infinite} infinite, "
          f"winners {dict(winners)}, {violations} violations, {time.process_time() - start:.0f} CPU s")  # fmt: skip
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
