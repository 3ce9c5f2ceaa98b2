"""Every attack of a study is made with the settings that the file gives."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from smoothness.analyzers import AttackSuccess
from smoothness.models import build_model
from smoothness.study.instruments import AnalyzerSettings, AttackSettings
from smoothness.threat import ThreatModel

ATTACKS, ANALYZERS = TypeAdapter(AttackSettings), TypeAdapter(AnalyzerSettings)


@pytest.mark.parametrize(
    ("settings", "norm", "expected"),
    [
        ({"kind": "apgd", "loss": "dlr-targeted", "steps": 7, "target_classes": 3}, "linf", {"steps": 7, "seed": 5}),
        ({"kind": "apgd", "surrogate": "tanh", "surrogate_width": 0.5}, "linf", {"surrogate_width": 0.5}),
        ({"kind": "ddn", "steps": 9}, "l2", {"steps": 9}),
        ({"kind": "fmn", "surrogate": "mollified"}, "l1", {"surrogate": "mollified"}),
        ({"kind": "deepfool"}, "l2", {"steps": 50}),
        ({"kind": "square", "queries": 40}, "linf", {"queries": 40, "seed": 5}),
        ({"kind": "evolution", "population": 6}, "l2", {"population": 6, "seed": 5}),
        ({"kind": "continuation", "restarts": 3}, "linf", {"restarts": 3, "seed": 5}),
        ({"kind": "cascade"}, "linf", {"effort": "standard", "seed": 5}),
        ({"kind": "cascade", "effort": "full"}, "linf", {"effort": "full"}),
    ],
)
def test_settings_reach_the_attack(settings, norm, expected):
    threat = ThreatModel(norm, 0.1)
    analyzer = ATTACKS.validate_python(settings).build(threat, seed=5)
    assert isinstance(analyzer, AttackSuccess)
    assert analyzer.attack.threat is threat
    for name, value in expected.items():
        assert getattr(analyzer.attack, name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cascade", "effort": "most"}, "effort"),
        ({"kind": "apgd", "surrogate": "tan"}, "did you mean 'tanh'"),
        ({"kind": "square", "queries": 0}, "queries"),
        ({"kind": "squares"}, "kind"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ATTACKS.validate_python(settings)


def test_the_audit_gives_both_verdicts():
    settings = ANALYZERS.validate_python({"kind": "audit", "epsilon": "1/255", "effort": "standard"})
    model = build_model("mlp", "relu", seed=0, input_shape=(5,), classes=3, width=8)
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    found = list(settings.measure(model, x, model(x).argmax(dim=1), 0, ()))
    assert [one.quantity for one in found] == ["gradient_masked", "figure_trustworthy"]
    assert [one.per_example for one in found] == [False, False]
    assert found[0].settings["threat"]["epsilon"] == 1 / 255
    assert ANALYZERS.validate_python({"kind": "audit", "bounded": False}).bounded is False
