"""Many random networks: does a sampled Jacobian, quotient or value ever exceed a certified bound?

    python -m tests.benchmarks.stress_lipschitz --first 0 --count 10000 [--log stress.txt]

Every network gets 400 points in each of two balls, against its bounds of both kinds of pairs and against the ranges of
every unit and output. Efforts take turns ("tight" on one network in ten); the search for steep pairs runs, with the
analyzers themselves, on every `--search`-th. One line per 500 networks goes to the log, with the count that goes next:
what was cut off goes on with `--first`. Prints every violation; exits with 1 when there was one.
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

from smoothness.analyzers.lipschitz_lower import LipschitzLowerBound
from smoothness.analyzers.lipschitz_target import ball_around, class_differences
from smoothness.analyzers.lipschitz_upper import LipschitzUpperBound, nearest_rivals
from smoothness.bounds.lipschitz import lipschitz_constants
from smoothness.bounds.reach import complete_ranges
from smoothness.bounds.reading import read_network
from tests.bounds.random_networks import Case, points_in_ball, random_case, sampled_constants

EFFORTS = ("fast", "standard", "fast", "standard", "fast", "tight", "fast", "standard", "fast", "standard")
PAIRS = ("ball", "centre")
LINE_EVERY = 500


@dataclass
class Tally:
    """What was seen since the last line."""

    networks: int = 0
    bounds: int = 0
    infinite: int = 0
    searched: int = 0
    winners: Counter = field(default_factory=Counter)
    efforts: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    violations: list = field(default_factory=list)
    closest: float = 0.0
    start: float = field(default_factory=time.process_time)

    def compare(self, label, low, up):
        """One lower value against one bound."""
        if up not in (0.0, float("inf")):
            self.closest = max(self.closest, low / up)
        if not low <= up * (1 + 1e-9):
            self.violations.append(f"VIOLATION {label}: {low!r} > {up!r}")
            print(self.violations[-1], flush=True)

    def line(self, first):
        return (
            f"{self.networks} networks from seed {first}: {self.bounds} bounds, {self.infinite} infinite, "
            f"{len(self.kinds)} kinds of network and activation, efforts {dict(self.efforts)}, "
            f"winners {dict(self.winners)}, {self.searched} searched, closest ratio {self.closest:.6f}, "
            f"{len(self.violations)} violations, {time.process_time() - self.start:.0f} CPU s; next --first "
            f"{first + self.networks}"
        )


def check(seed: int, tally: Tally, search: bool) -> None:
    """Sample one network and compare."""
    case = random_case(seed)
    of, effort = ("logits", "margin")[seed % 2], EFFORTS[seed // 2 % 10]
    samples = [sampled_constants(case, row) for row in range(len(case.x))]
    with torch.no_grad():
        network = read_network(case.model, case.x[:1])
        ball = ball_around(case.x, case.norm, case.radius, case.bounds)
        ranges = complete_ranges(network, ball, effort)
        mix = class_differences(network.run(ball.centre)[1], None) if of == "margin" else None
        mix = mix if mix is None else nearest_rivals(network, ranges[0], mix)
        found = {
            pairs: lipschitz_constants(
                network, ball, pairs=pairs, mix=mix, separate=mix is not None, effort=effort, ranges=ranges
            )
            for pairs in PAIRS
        }
        check_ranges(case, network, ranges[0], effort, tally)
    tally.networks += 1
    tally.efforts[effort] += 1
    tally.kinds[tuple(case.label.split()[1:3])] += 1
    for pairs, constants in found.items():
        tally.winners.update(constants.winners)
        for row, value in enumerate(constants.values.tolist()):
            tally.bounds += 1
            tally.infinite += value == float("inf")
            steep, ball_pairs, centre_pairs = samples[row][of]
            largest = max(steep, ball_pairs, centre_pairs) if pairs == "ball" else centre_pairs
            tally.compare(f"{case.label} {of} {pairs} {effort} row {row}", largest, value)
    if search:
        tally.searched += 1
        search_pairs(case, of, effort, seed, found, tally)


def check_ranges(case, network, ranges, effort, tally):
    """Every unit and output of the points lies in its range."""
    for row in range(len(case.x)):
        values, outputs = network.run(points_in_ball(case, row, 400).flatten(1))
        limits = [*ranges.before, ranges.find(network.output)]
        for layer, (z, limit) in enumerate(zip([*values, outputs], limits, strict=True)):
            noise = 1e-12 * (1 + z.abs().amax())
            over = torch.maximum(z - limit.upper[row], limit.lower[row] - z).amax() - noise
            if not over <= 0:
                tally.compare(f"{case.label} {effort} row {row}: range of layer {layer}", float(over), 0.0)


def search_pairs(case: Case, of, effort, seed, found, tally):
    """The lower bound's search; the analyzer must give what the functions gave."""
    for pairs in PAIRS:
        settings = {"norm": case.norm, "radius": case.radius, "of": of, "pairs": pairs, "bounds": case.bounds}
        upper = LipschitzUpperBound(effort=effort, **settings)(case.model, case.x).values
        torch.testing.assert_close(upper, found[pairs].values, rtol=1e-9, atol=0)
        lower = LipschitzLowerBound(**settings, starts=3, steps=15, seed=seed)(case.model, case.x).values
        for low, up in zip(lower.tolist(), upper.tolist(), strict=True):
            tally.compare(f"by search {case.label} {of} {pairs} {effort}", low, up)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--search", type=int, default=21, help="search on every k-th network")
    parser.add_argument("--log", type=Path, help="a file that lines are appended to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    violations, end = 0, arguments.first + arguments.count
    for first in range(arguments.first, end, LINE_EVERY):
        tally = Tally()
        for seed in range(first, min(first + LINE_EVERY, end)):
            check(seed, tally, seed % arguments.search == 0)
        violations += len(tally.violations)
        line = tally.line(first)
        print(line, flush=True)
        if arguments.log:
            with arguments.log.open("a") as file:
                file.write("\n".join([*tally.violations, line]) + "\n")
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
