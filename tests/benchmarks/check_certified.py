"""Does any adversarial example lie inside its certified radius? On every network of the shipped ablation.

    smoothness run activation-ablation --workers 2 --out runs/activation-ablation
    python -m tests.benchmarks.check_certified runs/activation-ablation --examples 200

Prints one row a network and norm; exits with 1 when an adversarial example was nearer than certified.
"""

import argparse
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import torch

import smoothness as sm
from smoothness.study.cells import build_cell, cell_data
from smoothness.study.config import load_config
from smoothness.study.folder import RunFolder
from smoothness.study.plan import plan_jobs
from smoothness.study.shipped import find_study

EPSILONS = (1 / 255, 4 / 255, 16 / 255)


def nearest_found(model, x, y, norm):
    """The smallest distance at which any attack fools the model: cascades at three radii, and minimal-norm attacks."""
    free = sm.ThreatModel(norm, None)
    distance = sm.MinimalPerturbation(norm)(model, x, y).values
    boundary = sm.DecisionBoundary(free, queries=500)(model, x, y)
    distance = torch.minimum(distance, boundary.distance.double())
    for epsilon in EPSILONS if norm == "linf" else ():
        found = sm.Cascade(sm.ThreatModel(norm, epsilon), effort="standard")(model, x, y)
        distance = torch.where(found.success, torch.minimum(distance, found.distance.double()), distance)
    return distance


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--networks", nargs="+", default=["*"], help="patterns of labels, as cnn/step/0 or mlp/*")
    parser.add_argument("--norms", nargs="+", default=["linf", "l2"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, folder, broken = load_config(find_study("activation-ablation"), "quick"), RunFolder(arguments.run), 0
    print("network | norm | certified, median | nearest found, median | closest ratio | certified at 1/255 or 0.1 | "
          "violations | CPU s")  # fmt: skip
    for job in plan_jobs(config):
        if not any(fnmatchcase(job.label, pattern) for pattern in arguments.networks):
            continue
        data = cell_data(config, job.cell)
        model = build_cell(config, job.cell, data)
        model.load_state_dict(folder.read_weights(job.training_key)[1])
        sample = data.test.balanced(arguments.examples)
        x, y = sample.inputs, sample.labels
        for norm in arguments.norms:
            start = time.process_time()
            certified = sm.CertifiedRadius(norm, effort="fast", bounds=(0.0, 1.0), evaluations=10)(model, x, y).values
            found = nearest_found(model, x, y, norm)
            violated = int((certified > found).sum())
            broken += violated
            right = found > 0
            ratio = float((certified / found)[right].max())
            share = float((certified >= (1 / 255 if norm == "linf" else 0.1)).double().mean())
            middles = (float(values[right].median()) for values in (certified, found))
            print(
                f"{job.label} | {norm} | {' | '.join(f'{m:.5f}' for m in middles)} | "
                f"{ratio:.3f} | {share:.3f} | {violated} | {time.process_time() - start:.0f}",
                flush=True,
            )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
