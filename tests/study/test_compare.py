"""Comparisons against scipy, worked small frames, and everything that must be refused."""

import csv
import json
import math
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import smoothness as sm
from smoothness.cli import app
from tests.report.synthetic import Rows, synthetic_run

ACCURACY = {
    "relu": [0.80, 0.82, 0.79, 0.83, 0.81],
    "gelu": [0.84, 0.85, 0.84, 0.86, 0.85],
    "tanh": [0.80, 0.83, 0.78, 0.83, 0.82],
}


def frame_of(levels, seeds=None, architecture="mlp"):
    rows = Rows()
    for level, values in levels.items():
        for seed, value in enumerate(values) if seeds is None else zip(seeds[level], values, strict=True):
            rows.add(level, architecture, seed, "clean_accuracy", np.float64(value))
    return rows.frame()


def study_frame(**shape):
    """The rows of a made-up study; its settings are not needed."""
    with mock.patch("tests.report.synthetic.synthetic_config"):
        return synthetic_run(**shape).frame


def rows_of(comparison, **where):
    frame = comparison.frame
    for name, value in where.items():
        frame = frame[frame[name] == value]
    return frame.to_dict("records")


def test_t_comparison_is_scipys_paired_test():
    found = sm.compare(frame_of(ACCURACY))
    for row in rows_of(found):
        expected = stats.ttest_rel(ACCURACY[row["level"]], ACCURACY["relu"])
        interval = expected.confidence_interval(0.95)
        assert row["p"] == pytest.approx(expected.pvalue)
        assert (row["low"], row["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    gelu, tanh = rows_of(found)
    assert (gelu["verdict"], tanh["verdict"]) == ("higher", "not told apart")
    assert gelu["p_adjusted"] == pytest.approx(2 * gelu["p"])
    assert (found.family_size, found.smallest_adjusted_p) == (2, 0.0)
    assert rows_of(sm.compare(frame_of(ACCURACY), "gelu"), level="relu")[0]["verdict"] == "lower"


def test_examples_are_reduced_before_seeds_are_paired():
    rows = Rows()
    for level, shift in (("relu", 0.0), ("gelu", 1.0)):
        for seed in range(3):
            rows.add(level, "mlp", seed, "margin", [1 + shift + seed, 3 + shift + seed**2, 999.0], unit="logit")
    frame = rows.frame()
    frame.loc[frame["value"] == 999.0, "valid"] = False
    frame.loc[(frame["activation"] == "gelu") & (frame["seed"] == 2) & (frame["example"] == 1), "value"] = np.nan
    (row,) = rows_of(sm.compare(frame, quantity="margin"))
    means = {"relu": [2.0, 3.0, 5.0], "gelu": [3.0, 4.0, 4.0]}  # of two examples; one where the other is NaN
    assert row["baseline_mean"] == pytest.approx(np.mean(means["relu"]))
    assert row["mean"] == pytest.approx(np.mean(means["gelu"]))
    assert row["pairs"] == 3  # not nine


def test_unpaired_seeds_are_dropped_and_named():
    frame = frame_of(
        {"relu": [0.1, 0.2, 0.3, 0.4], "gelu": [0.2, 0.35, 0.37, 0.9]}, {"relu": [0, 1, 2, 7], "gelu": [0, 1, 2, 11]}
    )
    found = sm.compare(frame)
    (row,) = rows_of(found)
    assert (row["pairs"], row["unpaired"]) == (3, "7 11")
    assert row["difference"] == pytest.approx((0.1 + 0.15 + 0.07) / 3)
    assert "Seeds left out somewhere for want of a partner: 7, 11." in str(found)


@pytest.mark.parametrize(
    ("seeds", "interval", "note"),
    [(1, False, "1 seed has both sides"), (2, True, "2 pairs: a verdict needs 3"), (3, True, "")],
)
def test_what_few_seeds_cannot_support(seeds, interval, note):
    (row,) = rows_of(sm.compare(frame_of({"relu": [0.1, 0.2, 0.3][:seeds], "gelu": [0.5, 0.601, 0.702][:seeds]})))
    assert math.isfinite(row["low"]) == interval
    assert note in row["note"]
    assert (row["verdict"] == "no verdict") == (seeds < 3)
    assert math.isnan(row["p"]) == (seeds < 3)


def test_no_seed_in_common():
    (row,) = rows_of(sm.compare(frame_of({"relu": [0.1], "gelu": [0.5]}, {"relu": [0], "gelu": [1]})))
    assert row["note"].startswith("no seed has both sides")
    assert row["unpaired"] == "0 1"


def test_a_single_pair_still_counts_in_the_family():
    frame = pd.concat([frame_of(ACCURACY), frame_of({"relu": [0.5], "gelu": [0.6]}, architecture="cnn")])
    found = sm.compare(frame)
    assert found.family_size == 3
    (row,) = rows_of(found, level="gelu", architecture="mlp")
    assert row["p_adjusted"] == pytest.approx(3 * row["p"])


@pytest.mark.parametrize("method", ["t", "bootstrap-t"])
def test_identical_differences_give_no_interval(method):
    base = [0.1, 0.2, 0.3, 0.4, 0.5]
    for shift in (0.0, 0.1):
        frame = frame_of({"relu": base, "gelu": [x + shift for x in base]})
        (row,) = rows_of(sm.compare(frame, method=method))
        assert math.isnan(row["low"])
        assert math.isnan(row["p"])
        assert (row["verdict"], f"all 5 differences are {shift:g}" in row["note"]) == ("no verdict", True)
        (row,) = rows_of(sm.compare(frame, method=method, test="permutation", confidence=0.9))
        assert row["p"] == (1.0 if shift == 0 else 2 / 2**5)
        assert row["verdict"] == ("not told apart" if shift == 0 else "higher")


def test_permutation_says_when_no_outcome_could_reach_the_level():
    few = sm.compare(frame_of(ACCURACY), test="permutation")
    assert few.smallest_adjusted_p == pytest.approx(2 * 2 / 2**5)
    assert set(few.frame["verdict"]) == {"no verdict"}
    assert "even the most extreme outcome gives an adjusted p of 0.125" in few.frame["note"].iloc[0]
    assert "no outcome at all could reach 0.05" in str(few).replace("\n", " ")
    rng = np.random.default_rng(0)
    many = {name: [*values, *(np.mean(values) + 0.01 * rng.standard_normal(4))] for name, values in ACCURACY.items()}
    enough = sm.compare(frame_of(many), test="permutation")
    assert enough.smallest_adjusted_p == pytest.approx(2 * 2 / 2**9)
    assert rows_of(enough, level="gelu")[0]["verdict"] == "higher"


def test_the_smallest_adjusted_p_holds_for_unequal_numbers_of_seeds():
    """Brute force: Holm over the smallest p of each row is what the most extreme data give."""
    levels = {
        "relu": list(range(6)),
        "a": [10.0 + k + 0.1 * k**2 for k in range(6)],
        "b": [10.0 + 1.1 * k for k in range(5)],
    }
    found = sm.compare(frame_of(levels), test="permutation")
    assert found.frame["p_adjusted"].tolist() == found.frame["smallest_p_adjusted"].tolist() == [2 / 32, 2 / 32]


def test_bootstrap_t_needs_five_pairs():
    (row,) = rows_of(sm.compare(frame_of({"relu": [0.0] * 4, "gelu": [1.0, 2.0, 3.0, 5.0]}), method="bootstrap-t"))
    assert (row["note"], row["verdict"]) == ("4 pairs: the bootstrap-t needs 5", "no verdict")
    found = sm.compare(frame_of(ACCURACY), method="bootstrap-t")
    assert found.test == "bootstrap-t"
    assert found.smallest_adjusted_p == pytest.approx(2 / 10_000)
    assert "erratic with few pairs" in str(found).replace("\n", " ")


def test_attack_success_is_among_the_correctly_classified_and_carried_forward():
    rows = Rows()
    for level, hit in (("relu", [1, 1, 0, 1]), ("gelu", [1, 0, 0, 1])):
        for seed in range(3):
            rows.add(level, "mlp", seed, "correct", [1, 1, 1, 0])
            rows.add(level, "mlp", seed, "attack_success", hit, attack="pgd-ce", epsilon=0.1, bound="lower")
            rows.add(level, "mlp", seed, "attack_success", [0, 0, 0, 1], attack="pgd-ce", epsilon=0.2, bound="lower")
    found = sm.compare(rows.frame(), quantity="attack_success")
    assert set(found.frame["attack"]) == {"pgd-ce", "union"}
    for row in rows_of(found):
        assert (row["baseline_mean"], row["mean"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
        assert row["bound"] == "lower"
    assert "a difference of two bounds is an estimate" in str(found).replace("\n", " ")
    robust = sm.compare(rows.frame(), quantity="robust_accuracy", epsilon=0.1)
    (row,) = rows_of(robust)
    assert (row["baseline_mean"], row["mean"], row["bound"]) == (pytest.approx(1 / 4), pytest.approx(1 / 2), "upper")


def test_masked_native_attacks_are_not_compared_but_the_union_is():
    run = study_frame(activations=("relu", "gelu", "step"), architectures=("mlp",), seeds=4)
    found = sm.compare(run, quantity="attack_success", epsilon=8 / 255)
    for row in rows_of(found, level="step"):
        native = row["attack"] in ("fgsm", "pgd-ce", "pgd-margin")
        assert (row["note"] == "native gradients of step are masked; see the union") == native
        assert math.isnan(row["p"]) >= native
    assert not any("masked" in row["note"] for row in rows_of(found, level="gelu"))
    turned = sm.compare(run, "step", quantity="attack_success", attack="pgd-ce", epsilon=8 / 255)
    assert {row["verdict"] for row in rows_of(turned)} == {"no verdict"}


def test_per_margin_removes_the_scale_of_the_logits():
    frame = study_frame(activations=("relu", "gelu"), architectures=("mlp",), seeds=4)
    scaled = frame.copy()
    chosen = (frame["activation"] == "gelu") & frame["quantity"].isin(["margin", "jacobian_norm"])
    scaled.loc[chosen, "value"] *= 7.0
    one, other = (sm.compare(f, quantity="jacobian_norm/margin").frame for f in (frame, scaled))
    assert one["difference"].tolist() == pytest.approx(other["difference"].tolist())
    assert one["unit"].tolist() == ["1 / input l2"]
    raw = [sm.compare(f, quantity="jacobian_norm").frame["difference"].iloc[0] for f in (frame, scaled)]
    assert raw[0] != pytest.approx(raw[1])


def test_a_whole_run_in_eighty_columns():
    found = sm.compare(study_frame(seeds=3))
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    layers = found.frame.loc[found.frame["quantity"] == "kink_density", "layer"]
    assert set(layers) == {"hidden 1", "hidden 2"}
    assert set(found.frame["architecture"]) == {"mlp", "cnn"}
    assert found.family_size == len(found.frame)


def test_several_runs_against_the_first():
    base, better = (
        frame_of(ACCURACY),
        frame_of({name: [x + 0.02 + 0.001 * k for k, x in enumerate(v)] for name, v in ACCURACY.items()}),
    )
    found = sm.compare({"old": base, "new": better})
    assert (found.factor, found.baseline, found.by) == ("run", "old", ("activation", "architecture"))
    assert [row["activation"] for row in rows_of(found, level="new")] == ["relu", "gelu", "tanh"]
    assert found.frame["difference"].tolist() == pytest.approx([0.022] * 3)
    inside = sm.compare({"old": base, "new": better}, factor="activation")
    assert inside.by == ("run", "architecture")
    assert len(inside.frame) == 4
    with pytest.raises(ValueError, match="needs a label of its own"):
        sm.compare(["a/run", "b/run"])


def test_other_factors_and_settings():
    frame = pd.concat(
        [
            frame_of(ACCURACY),
            frame_of(
                {k: [x - 0.1 - 0.01 * s for s, x in enumerate(v)] for k, v in ACCURACY.items()}, architecture="cnn"
            ),
        ]
    )
    found = sm.compare(frame, "mlp", factor="architecture")
    assert found.by == ("activation",)
    assert set(found.frame["verdict"]) == {"lower"}
    with pytest.raises(
        ValueError, match="networks of equal activation and seed differ in architecture; add that to by"
    ):
        sm.compare(frame, by=())
    # A width that goes with the architecture tells nothing apart; one that varies within it does.
    sized = frame.assign(width=np.where(frame["architecture"] == "mlp", 128, 16))
    assert sm.compare(sized).by == ("architecture",)
    assert sm.compare(sized, "mlp", factor="architecture").by == ("activation",)
    wider = pd.concat([sized, sized.assign(width=256, value=sized["value"] + 0.01 * sized["seed"])])
    assert sm.compare(wider).by == ("architecture", "width")
    narrow = wider[wider["architecture"] == "mlp"]
    found = sm.compare(narrow, "128", factor="width")
    assert (found.by, set(found.frame["level"])) == (("activation", "architecture"), {"256"})
    assert found.frame["difference"].tolist() == pytest.approx([0.02] * 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "rellu"}, "unknown activation 'rellu'; did you mean 'relu'"),
        ({"factor": "layer"}, "unknown factor 'layer'"),
        ({"quantity": "accuracy"}, "unknown quantity 'accuracy'"),
        ({"attack": "pgd"}, "unknown attack 'pgd'"),
        ({"epsilon": 0.1}, "epsilon 0.1 was not tested; known: none"),
        ({"method": "percentile"}, "unknown method"),
        ({"test": "u"}, "unknown test"),
        ({"confidence": 95}, "confidence must lie between 0.5 and 1"),
        ({"quantity": "robust_accuracy"}, "needs the quantity 'correct'"),
        ({"by": ["seed"]}, "unknown column of by 'seed'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        sm.compare(frame_of(ACCURACY), **changes)


def test_frames_that_cannot_be_compared():
    with pytest.raises(ValueError, match="lacks the columns unit, valid"):
        sm.compare(frame_of(ACCURACY).drop(columns=["unit", "valid"]))
    with pytest.raises(ValueError, match="holds no finished cell"):
        sm.compare(frame_of(ACCURACY).head(0))
    with pytest.raises(ValueError, match="nothing to compare"):
        sm.compare(frame_of({"relu": [0.1, 0.2]}))


def test_latex_is_escaped_and_whole():
    levels = {"relu": ACCURACY["relu"], "leaky_relu(α=5%) & $^{~}#<>\\": ACCURACY["gelu"]}
    text = sm.compare(frame_of(levels)).to_latex()
    assert (
        r"leaky\_relu(α=5\%) \& \$\textasciicircum{}\{\textasciitilde{}\}\#\textless{}\textgreater{}\textbackslash{}"
        in text
    )
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert body.count(" & ") == 10  # the escaped one stands inside a cell
    assert text.count(r"\toprule") == text.count(r"\end{tabular}") == 1
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert len(columns) == 11


def test_csv_keeps_every_digit(tmp_path):
    found = sm.compare(frame_of(ACCURACY))
    found.to_csv(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p"]) for row in rows] == found.frame["p"].tolist()


def test_json_is_strict():
    data = json.loads(sm.compare(study_frame(seeds=1)).to_json(), parse_constant=pytest.fail)
    assert data["smallest_adjusted_p"] is None
    assert data["rows"][0]["low"] is None


def test_command(tmp_path, monkeypatch):
    run = study_frame(seeds=5)
    monkeypatch.setattr("smoothness.study.comparing.load_frame", lambda folder: run)
    chosen = ["--quantity", "clean_accuracy"]
    done = CliRunner().invoke(app, ["compare", "out", *chosen])
    assert done.exit_code == 0, done.output
    assert "activation against relu" in done.output
    files = ["--csv", str(tmp_path / "c.csv"), "--latex", str(tmp_path / "c.tex")]
    done = CliRunner().invoke(app, ["compare", "out", *chosen, "--test", "permutation", "--json", *files])
    assert json.loads(done.stdout)["test"] == "permutation"
    assert (tmp_path / "c.csv").read_text().startswith("architecture,level,quantity")
    assert r"\toprule" in (tmp_path / "c.tex").read_text()
    done = CliRunner().invoke(app, ["compare", "a", "b", *chosen])
    assert "run against a" in done.output
    done = CliRunner().invoke(app, ["compare", "out", "--epsilon", "8/255", "--quantity", "robust_accuracy"])
    assert "epsilon 0.03137" in done.output
    for wrong, message in ((["--baseline", "gel"], "did you mean 'gelu'"), (["--epsilon", "x"], "Invalid literal")):
        done = CliRunner().invoke(app, ["compare", "out", *wrong])
        assert (done.exit_code, message in done.stderr) == (2, True)
