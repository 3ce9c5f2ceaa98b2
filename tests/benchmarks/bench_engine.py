"""What the engine costs beside the cells: 200 stand-in cells that only sleep, in this process.

Training and measuring are replaced; planning, locks, weights, rows, log and reading back are real. A profile of the
same with cells that take no time shows where the fixed costs lie.
"""

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pandas as pd

from smoothness.study import compute, run_study
from smoothness.study.cells import COLUMNS, CellResult, build_cell, cell_data
from smoothness.study.plan import plan_jobs

STUDY = """
name = "sleep"
title = "Sleep"
question = "What does the engine cost?"
factors = {{activation = ["relu", "gelu"], architecture = ["mlp"], seed = {seeds}}}
data = {{name = "digits", examples = 10}}
threat = {{norm = "linf", epsilons = [0.1]}}
attacks = [{{kind = "fgsm"}}]
"""


def _train(seconds):
    def train(config, cell):
        time.sleep(0.6 * seconds)
        return build_cell(config, cell, cell_data(config, cell)), {"gain": 1.0, "initial_weights": [1.0]}

    return train


def _measure(seconds):
    def measure(config, cell, model, facts):
        time.sleep(0.4 * seconds)
        known = {"cell": cell.label, "setting": cell.setting, "seed": cell.seed}
        rows = pd.DataFrame({"example": range(2000), "value": 0.5, "quantity": "gap", "valid": True, "epsilon": 0.1})
        rows = rows.assign(
            **known, study=config.name, activation=cell.activation.label, architecture=cell.architecture
        )
        rows = rows.reindex(columns=list(COLUMNS))
        return CellResult(rows, {**facts, **known}, {})

    return measure


def _timed_run(cells: int, seconds: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "sleep.toml"
        study.write_text(STUDY.format(seeds=list(range(cells // 2))))
        with (
            mock.patch.object(compute, "train_cell", _train(seconds)),
            mock.patch.object(compute, "measure_cell", _measure(seconds)),
        ):
            started = time.perf_counter()
            run = run_study(study, Path(folder) / "run")
            elapsed = time.perf_counter() - started
        assert not run.missing
        started = time.perf_counter()
        plan_jobs(run.config)
        print(f"{cells} cells planned in {time.perf_counter() - started:.2f} s")
        return elapsed


def main(cells: int = 200, seconds: float = 1.0) -> None:
    profile = cProfile.Profile()
    fixed = profile.runcall(_timed_run, cells, 0.0)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("cumulative").print_stats("smoothness|pyarrow|safetensors", 15)
    print(f"fixed costs, profiled: {1000 * fixed / cells:.1f} ms per cell")
    elapsed = _timed_run(cells, seconds)
    print(f"{cells} cells of {seconds:g} s: {elapsed:.1f} s, overhead {100 * (elapsed / (cells * seconds) - 1):.2f} %")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))
