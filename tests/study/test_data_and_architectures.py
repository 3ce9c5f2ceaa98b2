"""Studies of folders, spheres, residual networks and their normalisation."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from smoothness.panel.loading import load_data
from smoothness.study import ConfigError, load_run, run_study
from smoothness.study.cells import cell_data, cell_key, training_key
from smoothness.study.config import load_config
from smoothness.study.grid import grid

STUDY = """
name = "wide"
title = "Wide"
question = "Does it run?"

[factors]
activation = ["relu"]
architecture = ["resnet", "mlp"]
seed = [0]
FACTORS

[data]
DATA
examples = 4

[models]
resnet = {width = 4, depth = 1}
mlp = {width = 4, depth = 1}
MODELS

[training]
epochs = 1
batch_size = 20

[threat]
epsilons = [0.1]

[[attacks]]
kind = "fgsm"
"""
EXCLUDED = '\n[[exclude]]\narchitecture = "mlp"\nnormalisation = "batch"\nreason = "has none"\n'


def study(folder, data, factors="", models="", more=""):
    path = folder / "wide.toml"
    text = STUDY.replace("FACTORS", factors).replace("DATA", data).replace("MODELS", models)
    path.write_text(text + more)
    return path


def pictures(folder, grey=100):
    draws = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("dark", "light")):
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = draws.normal(grey + 50 * label, 20, (8, 8)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{k}.png")
    return folder


def keys(path):
    config = load_config(path)
    cells = [(cell, cell_data(config, cell)) for cell in grid(config)]
    return [(cell_key(config, cell, data), training_key(config, cell, data)) for cell, data in cells]


def named(folder):
    return f'name = "folder"\noptions = {{path = "{folder}", validation = 0.25}}'


@pytest.mark.parametrize("place", ["data", "factors"])
def test_the_content_of_a_folder_counts_and_its_place_does_not(tmp_path, place):
    here = pictures(tmp_path / "here" / "pictures")
    there = tmp_path / "there" / "pictures"
    shutil.copytree(here, there)
    other = pictures(tmp_path / "other" / "pictures", grey=90)

    def path(folder):
        if place == "data":
            return study(tmp_path, named(folder))
        return study(tmp_path, "", f'data = [{{name = "folder", options = {{path = "{folder}"}}}}, "digits"]')

    assert keys(path(here)) == keys(path(there))
    assert not set(keys(path(here))[:2]) & set(keys(path(other))[:2])


def test_a_run_tells_nobody_where_the_data_lie(tmp_path):
    folder = pictures(tmp_path / "secret-place" / "pictures")
    run = run_study(study(tmp_path, named(folder)), tmp_path / "run")
    assert run.frame["data"].unique().tolist() == ["folder(validation=0.25)"]
    assert load_run(tmp_path / "run").config.data.options["path"] == "pictures"
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"secret-place" not in file.read_bytes(), file


def test_a_folder_on_the_command_line(tmp_path):
    inputs, labels, bounds = load_data(str(pictures(tmp_path / "pictures")), examples=6)
    assert inputs.shape == (6, 1, 8, 8)
    assert labels.tolist().count(1) == 3
    assert bounds == (0.0, 1.0)


def test_workers_get_the_whole_path(tmp_path):
    folder = pictures(tmp_path / "pictures")
    sent = pickle.loads(pickle.dumps(load_config(study(tmp_path, named(folder)))))
    assert len(cell_data(sent, grid(sent)[0]).test) == 8


def test_normalisation_as_a_factor(tmp_path):
    path = study(tmp_path, 'name = "digits"\nsubset = 100', 'normalisation = ["batch", "none"]', more=EXCLUDED)
    run = run_study(path, tmp_path / "run")
    found = run.frame.groupby("setting")["normalisation"].unique().map(list).to_dict()
    assert found == {
        "mlp normalisation=none": ["none"],
        "resnet normalisation=batch": ["batch"],
        "resnet normalisation=none": ["none"],
    }
    sizes = [cell["parameters"] for cell in run.cells if cell["setting"].startswith("resnet")]
    assert len(set(sizes)) == 2  # batch normalisation has weights of its own


def test_settings_of_an_architecture_reach_the_network_and_its_key(tmp_path):
    first = keys(study(tmp_path, 'name = "digits"'))
    second = keys(study(tmp_path, 'name = "digits"', models='normalisation = "group"'))
    assert first[0] != second[0]  # the residual network
    assert first[1][1] == second[1][1]  # weights of the perceptron, which has no normalisation


def test_spheres_as_levels(tmp_path):
    levels = ", ".join(f'{{name = "spheres", options = {{dimensions = {n}, train = 40}}}}' for n in (5, 10))
    path = study(tmp_path, "", f"data = [{levels}]")
    path.write_text(path.read_text().replace('["resnet", "mlp"]', '["mlp"]'))
    config = load_config(path)
    assert [cell_data(config, cell).input_shape for cell in grid(config)] == [(5,), (10,)]
    assert config.data_labels == ["spheres(dimensions=5,train=40)", "spheres(dimensions=10,train=40)"]


@pytest.mark.parametrize(
    ("data", "factors", "models", "message"),
    [
        ('name = "folder"', "", "", "needs the option path; give it"),
        ('name = "folder"\noptions = {path = "/nowhere/at/all"}', "", "", "/nowhere/at/all is no folder"),
        (
            'name = "digits"',
            'normalisation = ["batch", "none"]',
            "",
            "mlp has no normalisation, and 'batch' is asked for",
        ),
        ('name = "digits"', "", 'normalisation = "bach"', "unknown normalisation 'bach'; did you mean 'batch'"),
        (
            'name = "digits"',
            'normalisation = ["none"]',
            'normalisation = "batch"',
            "models.normalisation fixes what this",
        ),
        ('name = "digits"', "", "vit = {head = 2}", "unknown option of vit 'head'; did you mean 'heads'"),
        ('name = "spheres"', "", "", "resnet needs input_shape"),
    ],
)
def test_what_does_not_fit_is_said_before_any_training(tmp_path, data, factors, models, message):
    with pytest.raises(ConfigError, match=message):
        run_study(study(tmp_path, data, factors, models), tmp_path / "run")
    assert not (tmp_path / "run").exists()
