"""Roughness in a study: rows of every scale, and slices beside the examples."""

import importlib.util

import pytest

import smoothness as sm
from smoothness.study.config import ConfigError, load_config

STUDY = """
name = "rough"
title = "Rough"
question = "How rough?"
factors = {activation = ["relu", "gelu", "step"], architecture = ["mlp"], seed = [0]}
data = {name = "digits", examples = 6}
models = {mlp = {width = 10, depth = 2}}
training = {epochs = 2}
threat = {norm = "linf", epsilons = ["8/255"]}
attacks = [{kind = "pgd", steps = 2}]
analyzers = [
    {kind = "variation", segments = 1, examples = 2},
    {kind = "variation", of = "layers", segments = 1, examples = 2},
    {kind = "plateaus", points = 8, examples = 2},
    {kind = "curvature", examples = 2},
    {kind = "probe", budget = 400, examples = 1},
    {kind = "regions", resolution = 12},
]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rough")
    (folder / "rough.toml").write_text(STUDY)
    return sm.run_study(folder / "rough.toml", folder / "run")


def test_three_scales_stand_apart(run):
    rows = run.frame[run.frame["valid"]].groupby(["activation", "quantity"])["value"].mean()
    assert rows["step", "value_jump_share"] == pytest.approx(1)  # nothing but jumps
    assert rows["relu", "value_jump_share"] == rows["gelu", "value_jump_share"] == 0
    assert rows["step", "input_curvature"] == rows["relu", "input_curvature"] == 0  # almost everywhere
    assert rows["gelu", "input_curvature"] > 0
    assert rows["step", "slice_flat"] > 0.3 > rows["relu", "slice_flat"]
    assert rows["relu", "slice_regions"] > 1
    assert rows["gelu", "probe_finds_none"] == 1
    layers = run.frame[run.frame["quantity"] == "layer_value_variation"]
    assert set(layers["layer"]) == {"activation1", "activation2"}
    shares = run.frame[run.frame["quantity"].str.endswith("gradient_concentration") & run.frame["valid"]]
    means = shares.groupby(["activation", "epsilon"])["value"].mean()
    assert (means["relu"] == 1).all()  # kinks turn at once, whatever the scale
    assert means["gelu"].is_monotonic_increasing
    assert means["gelu"].iloc[0] < 0.01


def test_slices_lie_beside_the_examples(run):
    for label in run.example_files:
        kept = run.examples(label)
        assert kept["slice_classes"].shape == (12, 12)
        assert kept["slice_slope"].shape == (2, 12, 12)


@pytest.mark.parametrize("wrong", ['of = "layer"', "segments = 0", "scales = [-1]"])
def test_settings_are_checked(wrong, tmp_path):
    path = tmp_path / "rough.toml"
    path.write_text(STUDY.replace('kind = "variation", segments = 1', f'kind = "variation", {wrong}', 1))
    with pytest.raises(ConfigError, match=wrong.split()[0]):
        sm.run_study(path, tmp_path / "run")


def test_analyzers_of_a_kind_may_share_the_architectures_out(tmp_path):
    two = 'architectures = ["mlp"]}, {kind = "probe", budget = 400, examples = 1, architectures = ["OTHER"]'
    path = tmp_path / "rough.toml"
    for other, fits in (("cnn", True), ("mlp", False)):
        settings = f"budget = 400, examples = 1, {two.replace('OTHER', other)}"
        path.write_text(STUDY.replace("budget = 400, examples = 1", settings))
        if fits:
            assert len(load_config(path).analyzers) == 7
        else:
            with pytest.raises(ConfigError, match="the second probe has no label"):
                load_config(path)


def test_explanations_need_captum_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "rough.toml"
    path.write_text(STUDY.replace('{kind = "probe", budget = 400, examples = 1}', '{kind = "attribution"}'))
    with pytest.raises(ConfigError, match=r"smoothness\[attribution\]"):
        sm.run_study(path, tmp_path / "run")
