"""The checks of analyzers, attacks and data sets pass ours and catch a plug-in broken in each single way."""

import dataclasses
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.attacks.result import Passes
from smoothness.data import list_datasets, load_dataset
from smoothness.testing import check_analyzer, check_attack, check_dataset

X = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    "analyzer",
    [sm.JacobianNorm(), sm.CleanPredictions(), sm.AttackSuccess(sm.FGSM(sm.ThreatModel("linf", 0.1)))],
    ids=lambda analyzer: type(analyzer).__name__,
)
def test_our_analyzers_pass(analyzer):
    check_analyzer(analyzer, network(), X, Y)


@dataclass(frozen=True)
class Analyzer:
    """The first logit; `broken` adds one fault."""

    broken: str = ""
    calls: list = field(default_factory=list, repr=False, compare=False)

    def __call__(self, model, inputs, labels=None):
        self.calls.append(1)
        with torch.no_grad():
            values = model(inputs)[:, 0]
        fault = self.broken
        settings = {"broken": fault, "calls": 0}
        valid, details, bound, unit = torch.ones(len(inputs), dtype=torch.bool), {}, "exact", "logit"
        if fault == "mode":
            model.eval()
        elif fault == "weights":
            model[0].weight.data.add_(1e-6)
        elif fault == "flags":
            model[0].weight.requires_grad_(False)
        elif fault == "gradients":
            model(inputs).sum().backward() if torch.is_grad_enabled() else None
        elif fault == "hooks":
            model[0].register_forward_hook(lambda *_: None)
        elif fault == "inputs":
            inputs.add_(0.0).mul_(1.0).add_(1e-3)
        elif fault == "torch":
            torch.rand(1)
        elif fault == "numpy":
            np.random.rand()  # noqa: NPY002
        elif fault == "python":
            random.random()
        elif fault == "grad":
            torch.set_grad_enabled(not torch.is_grad_enabled())
        elif fault == "nothing":
            return values
        elif fault == "repeat":
            values = values + len(self.calls)
        elif fault == "batch":
            values = values - values.mean()
        elif fault == "rows":
            values, valid = values[:-1], valid[:-1]
        elif fault == "nan":
            values = values * torch.nan
        elif fault == "reason":
            valid = ~valid
        elif fault == "settings":
            settings = {}
        elif fault == "json":
            settings["broken"] = {1, 2}
        elif fault == "unit":
            unit = ""
        elif fault == "dtype":
            valid = valid.float()
        found = sm.Measurement("first_logit", values, unit, bound, {}, settings, valid, details)
        if fault == "bound":
            object.__setattr__(found, "bound", "roughly")
        elif fault == "graph":
            object.__setattr__(found, "values", values.clone().requires_grad_())
        return (found, found) if fault == "names" else found


ANALYZER_FAULTS = {
    "mode": "training flags are changed",
    "weights": "weights are changed",
    "flags": "requires_grad flags are changed",
    "gradients": "gradients are changed",
    "hooks": "hooks are changed",
    "inputs": "inputs and labels are changed",
    "torch": "torch's global random state",
    "numpy": "numpy's global random state",
    "python": "Python's global random state",
    "grad": "grad mode is changed",
    "nothing": "returns no Measurement",
    "repeat": "a second call gives other values",
    "batch": "the first example alone",
    "rows": "11 rows for 12 examples",
    "nan": "NaN counts as valid",
    "reason": "does not say why",
    "settings": "settings lack broken, calls",
    "json": "cannot be stored as JSON",
    "unit": "unit must be named",
    "dtype": "valid must be bool",
    "bound": "bound is 'roughly'",
    "graph": "values must be detached",
    "names": "one name to two measurements",
}


def test_a_sound_analyzer_passes():
    check_analyzer(Analyzer(), network(), X, Y)
    check_analyzer(Analyzer(), network(), X)


@pytest.mark.parametrize("fault", ANALYZER_FAULTS)
def test_each_broken_analyzer_is_caught(fault):
    with torch.enable_grad(), pytest.raises(AssertionError, match=ANALYZER_FAULTS[fault]):
        check_analyzer(Analyzer(fault), network(), X.clone(), Y)
    torch.set_grad_enabled(True)


def test_settings_that_can_change_are_caught():
    class Loose:
        def __call__(self, model, inputs, labels=None):
            return Analyzer()(model, inputs)

    with pytest.raises(AssertionError, match="not a frozen dataclass"):
        check_analyzer(Loose(), network(), X)


@pytest.mark.parametrize("kind", ["pgd", "fgsm", "noise"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_our_attacks_pass(kind, norm):
    threat = sm.ThreatModel(norm, 0.2)
    attack = {"pgd": sm.PGD(threat, steps=5), "fgsm": sm.FGSM(threat), "noise": sm.Noise(threat, draws=5)}[kind]
    check_attack(attack, network(), X, Y)


@dataclass(frozen=True)
class Attack:
    """FGSM; `broken` falsifies one thing afterwards."""

    threat: sm.ThreatModel
    broken: str = ""
    calls: list = field(default_factory=list, repr=False, compare=False)

    def __call__(self, model, x, y):
        self.calls.append(1)
        found = sm.FGSM(self.threat)(model, x, y)
        fault, error = self.broken, torch.tensor([s == "clean_error" for s in found.status])
        change = {}
        if fault == "ball" or (fault == "l2 ball" and self.threat.norm == "l2"):
            change = {"inputs": torch.where(error[:, None], x, (x + 3 * (found.inputs - x)).clamp(0, 1))}
        elif fault == "bounds":
            change = {"inputs": torch.where(error[:, None], x, x - self.threat.epsilon)}
        elif fault == "success":
            change = {"success": torch.ones_like(found.success)}
        elif fault == "distance":
            change = {"distance": found.distance * 2 + 0.01}
        elif fault == "infinite":
            change = {"distance": found.distance.nan_to_num(posinf=0.0)}
        elif fault == "errors":
            change = {"success": found.success & ~error}
        elif fault == "moved":
            change = {"inputs": torch.where(error[:, None], (x + 0.01).clamp(0, 1), found.inputs)}
        elif fault == "repeat":
            change = {"inputs": found.inputs - 1e-4 * (len(self.calls) % 2)}
        elif fault == "alone":
            change = {"status": ("survived",) * len(x)} if len(x) == 1 else {}
        elif fault == "status":
            change = {"status": ("great",) * len(x)}
        elif fault == "fooled":
            change = {"status": tuple("survived" if s == "fooled" else s for s in found.status)}
        elif fault == "passes":
            change = {"passes": Passes(0, 0)}
        elif fault == "shape":
            change = {"inputs": found.inputs.double()}
        elif fault == "flags":
            change = {"success": found.success.float()}
        elif fault == "mode":
            model.eval()
        elif fault == "random":
            torch.rand(1)
        elif fault == "result":
            return found.inputs
        return dataclasses.replace(found, **change)


ATTACK_FAULTS = {
    "ball": "beyond epsilon",
    "l2 ball": "with l2: inputs lie",
    "bounds": "outside the threat model's bounds",
    "success": "success is not what the forward pass says",
    "distance": "distance is not",
    "infinite": "distance must be infinite",
    "errors": "clean errors must count as successes",
    "moved": "clean errors must stay unchanged",
    "repeat": "a second call gives another result",
    "alone": "the first example alone is survived",
    "status": "status must hold one of",
    "fooled": 'status must be "fooled" exactly',
    "passes": "passes counts 0",
    "shape": "inputs must be as x",
    "flags": "success must be",
    "mode": "training flags are changed",
    "random": "torch's global random state",
    "result": "not an AttackResult",
}


def attacked():
    """A model, inputs inside the bounds, and labels of which the first is right and fooled, and some are wrong."""
    model = nn.Linear(4, 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 4, generator=generator))
        model.bias.copy_(-0.5 * model.weight.sum(dim=1))  # the classes meet in the middle of the box
        x = torch.rand(40, 4, generator=generator)
        y = model(x).argmax(dim=1)
        top = model(x).topk(2, dim=1).values
    x, y = (t[(top[:, 0] - top[:, 1]).argsort()] for t in (x, y))  # the closest to the boundary first
    y[5:10] = (y[5:10] + 1) % 3
    return model, x, y


def test_a_sound_attack_passes():
    check_attack(Attack(sm.ThreatModel("linf", 0.1)), *attacked())


@pytest.mark.parametrize("fault", ATTACK_FAULTS)
def test_each_broken_attack_is_caught(fault):
    with pytest.raises(AssertionError, match=ATTACK_FAULTS[fault]):
        check_attack(Attack(sm.ThreatModel("linf", 0.3), fault), *attacked())


def test_an_attack_without_a_threat_model_is_caught():
    with pytest.raises(AssertionError, match=r"not a frozen dataclass(.|\n)*has no `threat`"):
        check_attack(lambda model, x, y: None, *attacked())


FROM_A_PATH = {"folder", "texts"}  # of the reader; tested where they are read
# As published: sentences that, lower-cased and cut to the model's length, stand in two splits.
REPEATED = {
    "banking77": {
        "train also stand in validation": 8,
        "train also stand in test": 22,
        "validation also stand in test": 1,
    },
    "clinc150": {
        "train also stand in validation": 7,
        "train also stand in test": 4,
        "validation also stand in test": 1,
    },
    "spam": {"train also stand in validation": 6, "train also stand in test": 11, "validation also stand in test": 3},
}


@pytest.mark.parametrize("name", [name for name in list_datasets() if name not in FROM_A_PATH | set(REPEATED)])
def test_our_datasets_pass(name):
    check_dataset(load_dataset(name))


@pytest.mark.parametrize("name", list(REPEATED))
def test_published_texts_repeat_a_few_sentences_and_fail_in_nothing_else(name):
    with pytest.raises(AssertionError) as caught:
        check_dataset(load_dataset(name))
    said = [line.strip() for line in str(caught.value).splitlines()[1:] if line.strip()]
    assert said == [f"{count} inputs of {what}" for what, count in REPEATED[name].items()]


def changed_split(split, inputs=None, labels=None):
    return sm.Split(split.inputs if inputs is None else inputs, split.labels if labels is None else labels)


DATASET_FAULTS = {
    "inputs must be float32": lambda d: {"test": changed_split(d.test, d.test.inputs.double())},
    "labels must be int64": lambda d: {"test": changed_split(d.test, labels=d.test.labels.int())},
    "hold NaN": lambda d: {"train": changed_split(d.train, d.train.inputs * torch.nan)},
    "outside bounds": lambda d: {"bounds": (0.0, 0.5)},
    "labels must be 0 to 8": lambda d: {"classes": d.classes[:9]},
    "no example of class 10": lambda d: {"classes": (*d.classes, "none")},
    "two or more different names": lambda d: {"classes": ("same",) * 10},
    "source is empty": lambda d: {"source": " "},
    "name is empty": lambda d: {"name": ""},
    "400 inputs of train also stand in test": lambda d: {
        "train": sm.Split(torch.cat([d.train.inputs, d.test.inputs]), torch.cat([d.train.labels, d.test.labels]))
    },
    r"test: inputs have shape \(64,\)": lambda d: {"test": changed_split(d.test, d.test.inputs.flatten(1))},
    "validation: is empty": lambda d: {"validation": sm.Split(d.test.inputs[:0], d.test.labels[:0])},
}


@pytest.mark.parametrize("message", DATASET_FAULTS)
def test_each_broken_dataset_is_caught(message):
    data = load_dataset("digits")
    with pytest.raises(AssertionError, match=message):
        check_dataset(dataclasses.replace(data, **DATASET_FAULTS[message](data)))


def test_everything_wrong_is_listed_at_once():
    data = dataclasses.replace(load_dataset("digits"), source="", bounds=(0.0, 0.5))
    with pytest.raises(AssertionError, match=r"source is empty(.|\n)*train: .*(.|\n)*test: inputs span"):
        check_dataset(data)
    with pytest.raises(AssertionError, match="is a dict, not a"):
        check_dataset({})
