"""Studies of adversarially trained networks: settings become the recipe, and are said in cells and report."""

import pytest
import torch

from smoothness.data import load_dataset
from smoothness.report.methods import methods
from smoothness.study import ConfigError, load_config, run_study
from smoothness.study.cells import grid, train_cell, training_key
from smoothness.threat import ThreatModel

from .conftest import TINY

TRADES = 'method = "trades"\nepsilon = "16/255"\nsteps = 2\nbeta = 3'
ONE_CELL = TINY.replace('["relu", "step", {name = "softplus", parameters = {beta = 4.0}}]', '["relu"]').replace(
    '["mlp", "cnn"]\nseed = [0, 1]', '["mlp"]\nseed = [0]'
)


def _study(path, training, text=ONE_CELL):
    path.write_text(text.replace("epochs = 1", f"epochs = 1\n{training}"))
    return load_config(path)


def test_settings_become_the_recipe(tiny):
    settings = _study(tiny, TRADES).training
    recipe = settings.recipe(ThreatModel("l2", bounds=None), epochs=4, seed=7, threads=1)
    adversary = recipe.adversarial
    assert (recipe.epochs, recipe.seed, recipe.surrogate) == (4, 7, "tanh")
    assert (adversary.method, adversary.steps, adversary.beta) == ("trades", 2, 3.0)
    assert (adversary.threat.norm, adversary.threat.epsilon, adversary.threat.bounds) == ("l2", 16 / 255, None)
    assert _study(tiny, "").training.recipe(ThreatModel("l1"), epochs=1, seed=0, threads=1).adversarial is None


def test_an_l1_threat_is_refused(tiny):
    text = ONE_CELL.replace('norm = "linf"', 'norm = "l1"')
    with pytest.raises(ConfigError, match=r"training.method: .* 'linf' or 'l2', and threat.norm is 'l1'"):
        _study(tiny, 'method = "pgd-at"\nepsilon = 1', text)


def test_the_norm_belongs_to_the_weights_only_against_an_adversary(tiny):
    data, keys = load_dataset("digits"), {}
    for training in ("", TRADES):
        for norm in ("linf", "l2"):
            config = _study(tiny, training, ONE_CELL.replace('norm = "linf"', f'norm = "{norm}"'))
            keys[training, norm] = training_key(config, next(iter(grid(config))), data)
    assert keys["", "linf"] == keys["", "l2"]
    assert len(set(keys.values())) == 3


def test_cells_and_report_say_it(tiny, tmp_path):
    config = _study(tiny, TRADES)
    model, facts = train_cell(config, next(iter(grid(config))))
    ordinary = _study(tiny, "")
    plain, plain_facts = train_cell(ordinary, next(iter(grid(ordinary))))
    assert {"robust_accuracy", "attacked_accuracy", "collapsed_at"} == facts.keys() - plain_facts.keys()
    assert not torch.equal(model.output.weight, plain.output.weight)
    _study(tiny, TRADES)
    run = run_study(tiny, tmp_path / "run")
    assert run.cells[0]["robust_accuracy"] == list(facts["robust_accuracy"])
    assert any(
        "TRADES in max-norm balls of radius 16/255 with 2 steps and weight 3" in s for s in methods(run, run.frame)
    )
