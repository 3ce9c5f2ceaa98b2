"""Our attacks side by side with other libraries: same networks, examples and radius, in turn, on one thread.

Three parts, each a Markdown table:

pgd        40 steps of PGD above 40 bare forward and backward passes of the same batch ("floor"), for eight networks
           at radius 0.1; ours with and without dropping fooled examples, and every library that is installed.
ensemble   smooth and kinked networks, with and without adversarial training: `Cascade` beside AutoAttack of
           pyautoattack, and the cascade's first stages beside 100 steps of APGD-CE and of targeted APGD on all
           examples.
hard       networks with jumps: `Cascade(effort="full")` beside every single attack, each on all examples.

Seconds are processor time on the CPU (the same as elapsed time on an idle machine) and elapsed time on CUDA. Passes
are forward and backward example-passes. "Left" is the robust accuracy in percent: lower is a stronger attack. The
networks are trained first, and kept when `--cache` names a folder. Libraries that are not installed are skipped.

    python -m tests.benchmarks.bench_attacks [--parts pgd ensemble hard] [--models "digits mlp"] [--examples 100]
        [--repeats 5] [--device cpu] [--cache FOLDER] [--correct]
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness._state import probing
from smoothness.attacks import APGD, PGD, Cascade
from smoothness.attacks.result import Attack
from smoothness.threat import ThreatModel
from tests.benchmarks import attack_peers
from tests.benchmarks.attack_models import Case, examples, hard_cases, pgd_cases, smooth_cases, trained
from tests.benchmarks.attack_stages import first_stages, single_attacks

PGD_THREAT = ThreatModel("linf", 0.1)  # one for all, as most examples fall on some networks and few on others
Run = Callable[[nn.Module], Tensor]  # which examples are left


@dataclass(frozen=True)
class Options:
    parts: list[str]
    models: str
    examples: int
    repeats: int | None
    device: str
    cache: Path | None
    correct: bool


@dataclass(frozen=True)
class Outcome:
    """Of one attack on one network: examples left, median seconds, example-passes."""

    left: Tensor
    seconds: float
    passes: int

    @property
    def percent(self) -> float:
        return 100 * float(self.left.double().mean())


class Counted(nn.Module):
    """The model, counting examples sent forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(x)
        self.passes += len(x)
        if outputs.requires_grad:
            outputs.register_hook(self._count)
        return outputs

    def _count(self, gradient: Tensor) -> None:
        self.passes += len(gradient)


@dataclass(frozen=True)
class Bench:
    """One network, the ball and the examples that everything is run on."""

    case: Case
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: ThreatModel

    @property
    def epsilon(self) -> float:
        return float(self.threat.epsilon or 0)

    def own(self, attack: Attack) -> Run:
        def run(model: nn.Module) -> Tensor:
            found = attack(model, self.x, self.y)
            if isinstance(model, Counted):
                model.passes = found.passes.total  # those through copies of the model too
            return ~found.success

        return run

    def peer(self, attack: attack_peers.Peer) -> Run:
        def run(model: nn.Module) -> Tensor:
            points = attack(model, self.x, self.y, self.epsilon)
            return attack_peers.share_left(model, self.x, self.y, points, self.epsilon)

        return run

    def outcomes(self, runs: dict[str, Run], repeats: int) -> dict[str, Outcome]:
        """Each run once with its passes counted, then timed `repeats` times in turn; 0 times the counted run."""
        left, passes = {}, {}
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for name, run in runs.items():
            counted = Counted(self.model).eval()
            start = self._now()
            left[name] = run(counted)
            if repeats == 0:
                spent[name].append(self._now() - start)
            passes[name] = counted.passes
        for _ in range(repeats):
            for name, run in runs.items():
                start = self._now()
                run(self.model)
                spent[name].append(self._now() - start)
        return {name: Outcome(left[name], statistics.median(spent[name]), passes[name]) for name in runs}

    def _now(self) -> float:
        if self.x.is_cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def benches(cases: Sequence[Case], options: Options, threat: ThreatModel | None = None) -> Iterator[Bench]:
    for case in cases:
        if re.search(options.models, case.name):
            model = trained(case, options.cache).to(options.device)
            x, y = (tensor.to(options.device) for tensor in examples(case, options.examples))
            if options.correct:
                with torch.no_grad():
                    right = model(x).argmax(dim=1) == y
                x, y = x[right], y[right]
            yield Bench(case, model, x, y, threat or case.threat)


def floor(bench: Bench) -> Run:
    """The passes alone: loss and gradient at the input, nothing done with it."""

    def run(model: nn.Module) -> Tensor:
        with probing(model):
            for _ in range(attack_peers.PGD_STEPS):
                leaf = bench.x.detach().requires_grad_()
                torch.autograd.grad(F.cross_entropy(model(leaf), bench.y, reduction="sum"), leaf)
            with torch.no_grad():
                return model(bench.x).argmax(dim=1) == bench.y

    return run


def bench_pgd(options: Options) -> None:
    peers = attack_peers.pgd_peers()
    names = ["ours, all steps", "ours, dropping", *peers]
    print("\n### PGD-40: seconds over the floor (left %)\n")
    row("network", "clean %", "floor s", *names)
    row(*["---"] * (3 + len(names)))
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for bench in benches(pgd_cases(), options, PGD_THREAT):
        own = {"ours, all steps": PGD(bench.threat, drop_fooled=False), "ours, dropping": PGD(bench.threat)}
        runs = {name: bench.own(attack) for name, attack in own.items()}
        runs |= {name: bench.peer(attack) for name, attack in peers.items()}
        repeats = 5 if options.repeats is None else max(1, options.repeats)
        found = bench.outcomes({"floor": floor(bench), **runs}, repeats)
        base = found["floor"]
        for name in names:
            ratios[name].append(found[name].seconds / base.seconds)
        cells = [f"{ratios[name][-1]:.2f} ({found[name].percent:.0f})" for name in names]
        row(bench.case.name, f"{base.percent:.0f}", f"{base.seconds:.3f}", *cells)
    if ratios[names[0]]:
        row("**median**", "", "", *[f"**{statistics.median(ratios[name]):.2f}**" for name in names])


def bench_ensemble(options: Options) -> None:
    standard, apgd, targeted = map(attack_peers.autoattack, (None, ("apgd-ce",), ("apgd-t",)))
    print("\n### Smooth and kinked networks: left % (seconds, thousands of passes)\n")
    names = ["first stages", "APGD-CE + APGD-T on all", "cascade, standard", "cascade, full", "AutoAttack"]
    row("network", "clean %", *names, "first / APGDs", "standard / AA", "full / AA")
    row(*["---"] * (5 + len(names)))
    ratios: list[tuple[float, float, float]] = []
    for bench in benches(smooth_cases(), options):
        threat = bench.threat
        first: Run = partial(first_stages, x=bench.x, y=bench.y, threat=threat)
        if apgd is None or targeted is None:
            ce = bench.own(APGD(threat, loss="ce", drop_fooled=False))
            towards = bench.own(APGD(threat, loss="dlr-targeted", drop_fooled=False))
        else:
            ce, towards = bench.peer(apgd), bench.peer(targeted)
        runs: dict[str, Run] = {
            "first stages": first,
            "APGD-CE + APGD-T on all": partial(both, ce, towards),
            "cascade, standard": bench.own(Cascade(threat, effort="standard")),
            "cascade, full": bench.own(Cascade(threat, effort="full")),
        }
        if standard is not None:
            runs["AutoAttack"] = bench.peer(standard)
        found = bench.outcomes(runs, options.repeats or 0)
        other = found["AutoAttack"].seconds if "AutoAttack" in found else float("nan")
        ratios.append((
            found["first stages"].seconds / found["APGD-CE + APGD-T on all"].seconds,
            found["cascade, standard"].seconds / other,
            found["cascade, full"].seconds / other,
        ))  # fmt: skip
        cells = [told(found.get(name)) for name in names]
        row(bench.case.name, clean(bench), *cells, *[f"{ratio:.2f}" for ratio in ratios[-1]])
    if ratios:
        medians = [f"**{statistics.median(column):.2f}**" for column in zip(*ratios, strict=True)]
        row("**median**", *[""] * (1 + len(names)), *medians)


def bench_hard(options: Options) -> None:
    print("\n### Networks with jumps: left % (seconds, thousands of passes), every attack on all examples\n")
    singles = ["noise", "square", "evolution", "transfer"]
    row("network", "clean %", "cascade, full", "AutoAttack", *singles, "surrogates, best to worst", "cascade worse?")
    row(*["---"] * (6 + len(singles)))
    for bench in benches(hard_cases(), options):
        case = bench.case
        twin = trained(Case(case.data, case.architecture, "relu", "standard"), options.cache).to(options.device)
        runs = {"cascade": bench.own(Cascade(bench.threat, effort="full"))}
        runs |= {name: bench.own(attack) for name, attack in single_attacks(bench.threat, twin).items()}
        standard = attack_peers.autoattack()
        if standard is not None:
            runs["AutoAttack"] = bench.peer(standard)
        found = bench.outcomes(runs, options.repeats or 0)
        cascade = found.pop("cascade")
        worse = sorted(name for name, one in found.items() if one.percent < cascade.percent)
        through = sorted((one.percent, name) for name, one in found.items() if name not in (*singles, "AutoAttack"))
        cells = [told(found.get(name)) for name in ("AutoAttack", *singles)]
        span = f"{through[0][0]:.0f} ({through[0][1]}) to {through[-1][0]:.0f} ({through[-1][1]})"
        row(case.name, clean(bench), told(cascade), *cells, span, ", ".join(worse) or "no")


def both(one: Run, other: Run, model: nn.Module) -> Tensor:
    """What two attacks leave, each on all examples."""
    return one(model) & other(model)


def clean(bench: Bench) -> str:
    with torch.no_grad():
        return f"{100 * float((bench.model(bench.x).argmax(dim=1) == bench.y).double().mean()):.0f}"


def told(one: Outcome | None) -> str:
    return "-" if one is None else f"{one.percent:.0f} ({one.seconds:.2f} s, {one.passes / 1000:.0f} k)"


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def warm_up() -> None:
    """What is imported at the first call of a cascade is no part of its time."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.linspace(0, 1, 32).view(8, 1, 2, 2)
    Cascade(PGD_THREAT, effort="full")(model, x, model(x).argmax(dim=1))


PARTS = {"pgd": bench_pgd, "ensemble": bench_ensemble, "hard": bench_hard}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", default=".", help="regular expression of names, such as 'digits (mlp|cnn) relu'")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=None, help="timed turns; 5 for pgd, 0 for the others")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, default=None, help="folder in which trained networks are kept")
    parser.add_argument("--correct", action="store_true", help="only examples that the network gets right")
    options = Options(**vars(parser.parse_args()))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the libraries' own
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU, one thread"
    print(f"torch {torch.__version__}, {where}, {options.examples} examples")
    if attack_peers.missing():
        print(f"not installed, and skipped: {', '.join(attack_peers.missing())}")
    warm_up()
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
