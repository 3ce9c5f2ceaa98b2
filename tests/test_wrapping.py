"""Other people's models as plain modules: outputs, inputs, extras, precision, predict functions."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from smoothness.activations import surrogate_gradient, swap_activations
from smoothness.analyzers import JacobianNorm
from smoothness.attacks import PGD
from smoothness.threat import ThreatModel
from smoothness.wrapping import wrap


@dataclass
class Returned:
    hidden: torch.Tensor
    logits: torch.Tensor | None = None


class Foreign(nn.Module):
    """Returns whatever `form` says, and takes its input under a keyword, with a mask."""

    def __init__(self, form=lambda hidden, logits: logits):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.one, self.two, self.form = nn.Linear(4, 6), nn.Linear(6, 3), form
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, values, mask=None):
        hidden = self.one(values if mask is None else values * mask).relu()
        return self.form(hidden, self.two(hidden))


FORMS = {
    "tensor": lambda hidden, logits: logits,
    "object": lambda hidden, logits: Returned(hidden, logits),
    "dict": lambda hidden, logits: {"hidden": hidden, "logits": logits},
    "tuple": lambda hidden, logits: (logits, hidden),
    "list": lambda hidden, logits: [logits, hidden],
}


def _x():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
def test_the_output_is_found_when_left_out(form):
    assert torch.equal(wrap(Foreign(FORMS[form]))(_x()), Foreign()(_x()))


@pytest.mark.parametrize(
    ("form", "output"),
    [("object", "hidden"), ("dict", "hidden"), ("dict", 0), ("tuple", 1), ("tuple", -1), ("list", lambda o: o[1])],
)
def test_the_output_that_is_named(form, output):
    assert wrap(Foreign(FORMS[form]), output=output)(_x()).shape == (5, 6)


@pytest.mark.parametrize(
    ("form", "output", "error", "message"),
    [
        ("dict", "logit", ValueError, "the model returned no 'logit'; it returned dict with hidden, logits"),
        ("object", "logit", ValueError, "the model returned no 'logit'; it returned a Returned with hidden, logits"),
        ("tensor", "logits", ValueError, "the model returned no 'logits'; it returned a Tensor"),
        ("tuple", 2, ValueError, "nothing at index 2; it returned a tuple of 2: Tensor, Tensor"),
        ("tuple", lambda o: o, TypeError, "the chosen output is tuple, not a tensor; choose one with output='logits'"),
        ("tensor", lambda o: o.argmax(1), TypeError, "the chosen output is torch.int64, not floating point"),
    ],
)
def test_outputs_that_do_not_exist(form, output, error, message):
    with pytest.raises(error, match=message.replace(".", r"\.")):
        wrap(Foreign(FORMS[form]), output=output)(_x())


def test_an_ambiguous_output_asks():
    for form in (lambda h, o: Returned(h), lambda h, o: {"a": h, "b": o}, lambda h, o: (None, h), lambda h, o: None):
        with pytest.raises(TypeError, match="which output is meant"):
            wrap(Foreign(form))(_x())


def test_inputs_by_keyword_dict_tuple_and_extras():
    model, x, mask = Foreign(), _x(), torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    expected = model(x, mask)
    assert torch.equal(wrap(model, inputs="values", extras={"mask": mask})(x), expected)
    assert torch.equal(wrap(model, extras={"mask": mask})(x), expected)
    assert torch.equal(wrap(model, extras={"mask": mask[0]})(x), expected)
    assert torch.equal(wrap(model, inputs=lambda x: {"values": x, "mask": mask})(x), expected)
    assert torch.equal(wrap(model, inputs=lambda x: (x, mask))(x), expected)
    assert torch.equal(wrap(model, inputs=lambda x: x * mask)(x), expected)
    with pytest.raises(ValueError, match=r"extras\['mask'\] must be the same for every input: one row, got shape"):
        wrap(model, extras={"mask": mask.expand(5, 4)})
    wrapped = wrap(model, extras={"mask": mask})
    assert list(wrapped.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    assert copy.deepcopy(wrapped).double()(x.double()).dtype == torch.float64


def test_it_is_the_same_model_in_the_same_mode():
    model = Foreign().train()
    model.two.eval()
    wrapped = wrap(model)
    assert wrapped.model is model
    assert (wrapped.training, model.training, model.two.training) == (True, True, False)
    wrapped.eval()
    assert not model.training
    assert torch.equal(wrapped.model.one.weight, model.one.weight)


def test_analyzers_attacks_surrogates_and_swaps():
    x = _x()
    plain, wrapped = Foreign(), wrap(Foreign(FORMS["object"]), inputs="values")
    labels = plain(x).argmax(1)
    first, second = (JacobianNorm()(model, x) for model in (plain, wrapped))
    assert torch.equal(first.values, second.values)
    assert second.valid.all()
    attack = PGD(ThreatModel("linf", 0.5, bounds=None), steps=5)
    first, second = (attack(model, x, labels) for model in (plain, wrapped))
    assert torch.equal(first.inputs, second.inputs)
    swapped = swap_activations(wrapped, to="step")
    assert swapped.swap_report.replaced[0][0] == "model.relu"
    assert JacobianNorm()(swapped, x).values.max() == 0
    with surrogate_gradient(swapped, "identity"):
        assert JacobianNorm(probes=0)(swapped, x).values.min() > 0


def test_predict_functions_of_arrays_and_tensors():
    x, weight = _x(), np.arange(12.0).reshape(4, 3)
    predict = wrap(lambda rows: rows @ weight, arrays=True)
    found = predict(x)
    assert found.dtype == x.dtype
    torch.testing.assert_close(found, x @ torch.from_numpy(weight).float())
    measured = JacobianNorm()(predict, x)
    assert measured.values.max() == 0
    assert not measured.valid.any()  # no graph, and central differences say so
    labels = found.argmax(1)
    result = PGD(ThreatModel("linf", 0.1, bounds=None), steps=2)(predict, x, labels)
    assert result.zero_gradient.all()
    differentiable = wrap(lambda rows: rows @ torch.from_numpy(weight).to(rows.dtype))
    assert JacobianNorm()(differentiable, x).valid.all()
    with pytest.raises(TypeError, match="scores, not classes"):
        wrap(lambda rows: (rows @ weight).argmax(1), arrays=True)(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_or_upcast(dtype):
    model, x = Foreign().to(dtype), _x()
    with pytest.raises(TypeError, match=rf"the model is {dtype}.*model\.float\(\), or upcast=True"):
        wrap(model)
    wrapped = wrap(model, upcast=True)
    assert torch.equal(wrapped(x), copy.deepcopy(model).float()(x))
    assert torch.equal(wrapped(x.to(dtype)), wrapped(x.to(dtype).float()))
    assert model.one.weight.dtype == dtype
    with pytest.raises(TypeError, match=rf"inputs must be float32 or float64, got {dtype}"):
        wrap(Foreign())(x.to(dtype))
    with pytest.raises(TypeError, match=rf"the chosen output is {dtype}; pass upcast=True"):
        wrap(lambda rows: rows.to(dtype))(x)
    with pytest.raises(TypeError, match=rf"the model is {dtype}"):
        wrap(Foreign()).to(dtype)(x)


def test_precision_follows_the_model_upwards_alone():
    assert wrap(Foreign().double())(_x()).dtype == torch.float64
    with pytest.raises(TypeError, match=r"inputs are float64 and the model is torch.float32; use x.float\(\)"):
        wrap(Foreign())(_x().double())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_inputs_follow_the_models_device():
    found = wrap(Foreign().cuda(), extras={"mask": torch.ones(1, 4)})(_x())
    assert found.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model must be an nn.Module or a function, got int 3"),
        ({"model": nn.Linear}, "model must be a model, got the class Linear; make one, and fit or load it"),
        ({"output": 2.0}, "output must be a field's name, an index or a function, got 2.0"),
        ({"inputs": 1}, "inputs must be a keyword or a function of the tensor, got 1"),
        ({"arrays": True}, "arrays=True is for predict functions, got the module Foreign"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(TypeError, match=message.replace(".", r"\.")):
        wrap(**{"model": Foreign(), **arguments})
