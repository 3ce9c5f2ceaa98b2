"""Distances against the number of dimensions: slopes of made-up frames, verdicts, and a study that measures some."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import smoothness as sm
from smoothness.report.dimensions import dimension_answer, slope_table
from smoothness.study.config import ConfigError, load_config
from smoothness.study.dimension_settings import DimensionSettings
from smoothness.study.slopes import LINE, dimension_slopes

STUDY = """
name = "wider"
title = "Wider"
question = "Does it shrink?"
factors = {activation = ["identity"], architecture = ["mlp"], seed = [0, 1], data = [
    {label = "upsampled n=0064", name = "upsampled", options = {factor = 1}},
    {label = "upsampled n=0256", name = "upsampled", options = {factor = 2}},
    {label = "noisy n=0064", name = "noisy", options = {extra = 0}},
    {label = "noisy n=0464", name = "noisy", options = {extra = 400}},
]}
data = {examples = 8}
models = {mlp = {width = 8, depth = 1}}
training = {epochs = 2, learning_rates = [0.01]}
threat = {epsilons = [0.1]}
attacks = [{kind = "fgsm"}]
analyzers = [{kind = "dimension"}]
"""


def frame_of(slopes, way="wide", norm="linf", sizes=(10, 100, 1000), spread=0.1, scale=1.0):
    """Distances scale · n^slope · noise of each example, one slope per seed; two examples are misclassified."""
    rows = []
    draws = np.random.default_rng(0)
    for seed, slope in enumerate(slopes):
        for n in sizes:
            data = f"{way} n={n}"
            common = {"setting": f"mlp data={data}", "data": data, "activation": "relu", "seed": seed, "valid": True}
            middle = scale * n**slope
            values = middle * np.exp(spread * draws.standard_normal(20))
            values = [*np.delete(values, 0), middle * 10, 0.0, 0.0]
            rows += [{**common, "quantity": "input_dimensions", "value": float(n)}]
            rows += [{**common, "quantity": "clean_accuracy", "value": 0.9}]
            rows += [{**common, "quantity": f"boundary_distance_{norm}", "value": float(v)} for v in values]
    return pd.DataFrame(rows)


def test_slopes_are_those_of_polyfit():
    frame = frame_of([-0.5, -0.4, -0.6])
    (slope,) = dimension_slopes(frame)
    assert (slope.way, slope.network, slope.activation, slope.norm) == ("wide", "mlp", "relu", "linf")
    assert slope.dimensions == (10, 100, 1000)
    assert slope.accuracies == (0.9,) * 3
    for seed, found in enumerate(slope.slopes):
        own = frame[(frame["seed"] == seed) & (frame["quantity"] == "boundary_distance_linf") & (frame["value"] > 0)]
        medians = own.groupby("data", sort=False)["value"].median()
        assert found == pytest.approx(np.polyfit(np.log([10, 100, 1000]), np.log(medians), 1)[0])
    assert slope.low < slope.mean < slope.high
    assert slope.verdict == "supported"


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ([-0.5, -0.51, -0.49], "supported"),
        ([0.0, 0.001, -0.001], "not supported"),
        ([-0.01, -0.011, -0.009], "not supported"),  # surely below zero, and too little to matter
        ([0.5, 0.51, 0.49], "not supported"),
        ([-0.5, 0.5, 0.0], "inconclusive"),
        ([-0.5, -0.51], "inconclusive"),  # a test needs three seeds
        ([-0.5, -0.5, -0.5], "inconclusive"),  # no spread, no test
    ],
)
def test_verdicts(slopes, verdict):
    (slope,) = dimension_slopes(frame_of(slopes, spread=0.0))
    assert slope.verdict == verdict
    assert slope.mean == pytest.approx(np.mean(slopes))


def test_every_network_of_a_norm_counts_in_the_adjustment():
    several = [frame_of([-0.2, -0.3, -0.1], way=f"way{k}", spread=0.0) for k in range(4)]
    alone, *_ = dimension_slopes(several[0])
    together = dimension_slopes(pd.concat([*several, frame_of([0.5, 0.4, 0.45], norm="l2", spread=0.0)]))
    assert [s.norm for s in together] == ["linf"] * 4 + ["l2"]
    assert together[0].p == pytest.approx(alone.p)
    assert together[0].p_adjusted == pytest.approx(4 * alone.p)
    assert "inconclusive for 1 of 1 networks" in dimension_answer(together, whole=True)
    assert dimension_answer(together, whole=False).startswith("No verdict")


def test_the_general_verdict_is_that_of_the_worst():
    good = frame_of([-0.5, -0.51, -0.49], way="noisy", spread=0.0)
    flat = frame_of([0.0, 0.001, -0.001], way="upsampled", spread=0.0)
    slopes = dimension_slopes(pd.concat([good, flat]))
    text = dimension_answer(slopes, whole=True)
    assert "the distance shrinks with the dimension: not supported." in text
    assert "noisy: supported (supported for 1 of 1 networks)" in text
    assert "noisy -0.50 (linf); upsampled +0.00 (linf). In linf, their 95 % interval lies below 0 for 1 of 2." in text
    table = slope_table(slopes, "C5.", whole=True)
    assert [row[-1].text for row in table.rows] == ["supported", "not supported"]
    assert f"p of a slope of {LINE:g}" in table.caption


def test_a_distance_that_was_not_found_counts_as_far():
    frame = frame_of([-0.5, -0.4, -0.6], spread=0.0)
    frame.loc[(frame["quantity"] == "boundary_distance_linf") & (frame["data"] == "wide n=1000"), "value"] = math.inf
    (slope,) = dimension_slopes(frame)
    assert slope.slopes == (math.inf,) * 3
    assert slope.verdict == "inconclusive"
    assert dimension_slopes(frame[frame["data"] == "wide n=10"]) == []  # one size has no slope
    assert dimension_slopes(frame[frame["quantity"] == "clean_accuracy"]) == []


def test_distances_of_a_linear_network_are_those_of_the_closed_form():
    data = sm.load_dataset("noisy", extra=100)
    model = sm.build_model("mlp", "identity", input_shape=(164,), classes=10, width=12, depth=1)
    sm.train(model, data, sm.Recipe(epochs=3, learning_rates=(0.01,)))
    x = data.test.inputs[:10]
    with torch.no_grad():
        y = model(x).argmax(dim=1)
        zero, weights = model(torch.zeros(1, 164))[0], model(torch.eye(164)) - model(torch.zeros(1, 164))
        gaps = (x @ weights + zero).gather(1, y[:, None]) - (x @ weights + zero)
    settings = DimensionSettings(kind="dimension", norms=("l2", "linf"))
    n, *found = settings.measure_near(data, model, x, y, seed=0)
    assert float(n.values) == 164
    for one, norm, dual in zip(found, ("l2", "linf"), (2, 1), strict=True):
        lengths = torch.stack([(weights[:, y] - weights[:, [j]]).norm(p=dual, dim=0) for j in range(10)], dim=1)
        exact = (gaps / lengths).scatter(1, y[:, None], torch.inf).amin(dim=1).double()
        assert one.quantity == f"boundary_distance_{norm}"
        assert one.bound == "upper"
        ratio = torch.tensor(one.to_frame()["value"].to_numpy()) / exact
        assert ratio.min() > 1 - 1e-4
        assert ratio.median() < 1.05


def test_a_study_measures_and_its_report_shows_the_slopes(tmp_path):
    (tmp_path / "wider.toml").write_text(STUDY)
    run = sm.run_study(tmp_path / "wider.toml", tmp_path / "run")
    sizes = run.frame[run.frame["quantity"] == "input_dimensions"].set_index("data")["value"]
    assert sizes.groupby(level=0).first().to_dict() == {
        "noisy n=0064": 64, "noisy n=0464": 464, "upsampled n=0064": 64, "upsampled n=0256": 256,
    }  # fmt: skip
    found = {(s.way, s.norm): s for s in dimension_slopes(run.frame)}
    assert set(found) == {("upsampled", "linf"), ("upsampled", "l2"), ("noisy", "linf"), ("noisy", "l2")}
    assert found["noisy", "linf"].mean < -0.1  # weights on the noise are never zero
    sm.write_report(tmp_path / "run", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "No verdict on dimensions: it needs full scale and every cell." in text
    assert "| upsampled | mlp identity | linf | 64 256 |" in text
    assert "only in the frame of all rows" not in text
    assert (tmp_path / "report" / "figures" / "dimensions.svg").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{kind = "dimension", label = "mine"}', "kind 'dimension' takes no label"),
        ('{kind = "dimension", norms = ["l2", "l2"]}', "norms lists one twice: l2, l2"),
    ],
)
def test_settings_that_are_wrong(tmp_path, given, message):
    (tmp_path / "wider.toml").write_text(STUDY.replace('{kind = "dimension"}', given))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "wider.toml")
