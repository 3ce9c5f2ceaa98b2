"""Certified constants and radii in a study: rows, invariants and figures."""

import pytest

import smoothness as sm
from smoothness.consistency import ConsistencyError, check_frame, require
from smoothness.report.figures import certified_curves, lipschitz_sides
from smoothness.study.config import ConfigError
from smoothness.study.lipschitz_settings import BracketSettings

STUDY = """
name = "brackets"
title = "Brackets"
question = "Do both sides hold?"
factors = {activation = ["relu", "step", {mollify = "step", sigma = [0.3]}], architecture = ["mlp"], seed = [0]}
data = {name = "digits", examples = 12}
models = {mlp = {width = 12, depth = 2}}
training = {epochs = 4, learning_rates = [0.01]}
threat = {norm = "linf", epsilons = ["4/255", "32/255"]}
attacks = [{kind = "pgd", steps = 5}]
analyzers = [
    {kind = "jacobian"},
    {kind = "lipschitz", radii = [1e-4, 0.3], examples = 2},
    {kind = "oscillation", radii = ["4/255"], examples = 2},
    {kind = "certified"},
    {kind = "clever", examples = 1},
]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brackets")
    (folder / "brackets.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return sm.run_study(folder / "brackets.toml", folder / "run")


def test_both_sides_stand_in_the_frame(run):
    frame = run.frame
    kinds = {name: set(own["bound"]) for name, own in frame.groupby("quantity")}
    assert kinds["local_lipschitz_lower"] == {"lower"}
    assert kinds["local_lipschitz_upper"] == kinds["global_lipschitz"] == {"upper"}
    assert kinds["local_oscillation_upper"] == {"upper"}
    assert kinds["certified_radius"] == {"lower"}
    assert kinds["clever_score"] == {"estimate"}
    upper = frame[frame["quantity"] == "local_lipschitz_upper"].set_index(["activation", "epsilon"])["value"]
    assert (upper["step", 0.3] == float("inf")).all()
    assert upper["relu", 0.3].between(0, 1e6).all()
    oscillation = frame[frame["quantity"] == "local_oscillation_upper"]["value"]
    assert oscillation.between(0, 1e6).all()  # finite for every activation
    names = {check.name for check in check_frame(frame, "linf") if check.passed}
    assert {"lower sides never exceed upper sides", "no adversarial example lies within its certified radius"} <= names


def test_sides_meet_the_gradient_at_a_tiny_radius(run):
    """relu: the smallest ball lies on one affine piece, where both sides are the norm of the margin's gradient."""
    frame = run.frame[run.frame["activation"] == "relu"]
    gradient = frame[frame["quantity"] == "jacobian_norm"].set_index("example")["value"]
    for side in ("lower", "upper"):
        rows = frame[(frame["quantity"] == f"local_lipschitz_{side}") & (frame["epsilon"] < 1e-3)]
        for example, value in rows.set_index("example")["value"].items():
            assert value == pytest.approx(gradient[example], rel=1e-3)


def test_planted_violations_fail_the_run(run):
    frame = run.frame
    up = frame["quantity"] == "local_lipschitz_upper"
    with pytest.raises(ConsistencyError, match="lower sides never exceed upper sides"):
        require(check_frame(frame.assign(value=frame["value"].where(~up, 0.0))))
    radius = frame["quantity"] == "certified_radius"
    far = frame.assign(value=frame["value"].where(~radius, 1.0))
    with pytest.raises(ConsistencyError, match="within its certified radius"):
        require(check_frame(far, "linf"))
    require(check_frame(far, "l2"))  # radii in another norm than the attacks' say nothing


def test_certified_accuracy_lies_below_attacked(run):
    curves = certified_curves(run.frame, "linf")
    assert (curves["certified"] <= curves["robust_accuracy"]).all()
    assert curves["certified"].max() > 0
    assert certified_curves(run.frame, "l2").empty
    sides = lipschitz_sides(run.frame)
    assert set(sides["side"]) == {"lower", "upper", "global"}
    assert set(sides["norm"]) == {"l2"}


def test_constants_with_the_centre_have_names_of_their_own():
    """Figures over all pairs must not mix with them."""
    data = sm.load_dataset("digits")
    model = sm.build_model("mlp", activation="relu", seed=0, input_shape=data.input_shape, classes=10, width=8)
    settings = BracketSettings(kind="lipschitz", pairs="centre", norm="linf", radii=(0.1,))
    found = {m.quantity: m for m in settings.measure(model, data.test.inputs[:1], data.test.labels[:1], 0, ())}
    assert set(found) == {"centred_lipschitz_lower", "centred_lipschitz_upper", "global_lipschitz"}
    assert found["centred_lipschitz_upper"].unit == "logit / input linf"


@pytest.mark.usefixtures("run")
def test_the_report_shows_them(folder):
    text = sm.write_report(folder / "run", folder / "report").read_text(encoding="utf-8")
    for slug in ("certified-accuracy", "lipschitz", "lipschitz-dial"):
        assert (folder / "report" / "figures" / f"{slug}.svg").is_file()
    for title in ("Certified beside attacked accuracy", "between its two sides", "along the dial"):
        assert title in text


@pytest.mark.parametrize("radii", ["[0.3, 0.1]", "[]", "[-1.0]", "['nan']"])
def test_radii_are_checked(radii, tmp_path):
    path = tmp_path / "brackets.toml"
    path.write_text(STUDY.replace("[1e-4, 0.3]", radii.replace("'", '"')))
    with pytest.raises(ConfigError, match="radii"):
        sm.run_study(path, tmp_path / "run")
