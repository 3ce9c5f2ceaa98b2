"""Configurations: what is accepted, and the readable error of each mistake."""

import pytest
from pydantic import ValidationError

from smoothness.study import ConfigError, StudyConfig, find_study, list_studies, load_config

from .conftest import TINY


def test_scales_overlay_tables(tiny):
    quick, full = load_config(tiny, "quick"), load_config(tiny, "full")
    assert [level.label for level in quick.factors.activation] == ["relu", "step", "softplus(beta=4)"]
    assert [level.label for level in full.factors.activation] == ["relu"]
    assert full.factors.seed == quick.factors.seed
    assert (quick.data.examples, full.data.examples, full.data.name) == (12, 20, "digits")
    assert quick.key != full.key
    assert quick.threat.epsilons == (8 / 255, 0.1)


def test_the_stored_form_validates_to_the_same_settings(tiny):
    config = load_config(tiny)
    assert StudyConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("scale", ["quick", "full"])
@pytest.mark.parametrize("name", list_studies())
def test_shipped_studies_are_valid(name, scale):
    assert load_config(find_study(name), scale).name == name


MISTAKES = [
    ("epochs = 1", "epoch = 1", "training.epoch: unknown key; did you mean 'epochs'?"),
    ("[[analyzers]]", "[[analysers]]", "analysers: unknown key; did you mean 'analyzers'?"),
    ("draws = 3", "draw = 3", "draw: unknown key; did you mean 'draws'?"),
    ("steps = 3", "step = 3", "step: unknown key; did you mean 'steps'?"),
    ("segments = 2", "segment = 2", "segment: unknown key; did you mean 'segments'?"),
    ("epochs = 1", "epochs = 0", "training.epochs: input should be greater than or equal to 1"),
    ("epochs = 1", "epochs = 1.5", "training.epochs: input should be a valid integer"),
    ("epochs = 1", 'surrogate = "tan"', "unknown surrogate shape 'tan'; did you mean 'tanh'"),
    ('kind = "fgsm"', 'kind = "fgms"', "attacks[1]"),
    ('"relu", "step"', '"relu", "stepp"', "unknown activation 'stepp'; did you mean 'step'"),
    ('"relu", "step"', '"relu", "relu"', "activation lists relu more than once"),
    ("beta = 4.0", "beta = -4.0", "beta must be a positive finite number"),
    ("beta = 4.0", "gamma = 4.0", "no parameter 'gamma'; it takes beta"),
    ('["mlp", "cnn"]', '["mlp", "rnn"]', "unknown architecture 'rnn'"),
    ("seed = [0, 1]", "seed = [0, -1]", "factors.seed[1]"),
    ("seed = [0, 1]", "seed = []", "factors.seed"),
    ('name = "digits"', 'name = "digit"', "unknown data set 'digit'; did you mean 'digits'"),
    ('"8/255"', '"8/0"', "expected a number or a fraction such as '8/255'"),
    ('"8/255"', '"a lot"', "expected a number or a fraction"),
    ("0.1]", "-0.1]", "threat.epsilons[1]: input should be greater than 0 (got -0.1)"),
    ("0.1]", "nan]", "threat.epsilons[1]"),
    ('norm = "linf"', 'norm = "l3"', "threat.norm"),
    ('question = "Does it run?"', "", "question: missing; add it"),
    ("[training]", "[training", "not valid TOML"),
    ("[full]", "full = 3", "must be a table"),
    ('name = "tiny"', 'name = "../x"', "name: string should match pattern"),
    ("8/255", "1/2/3", "expected a number or a fraction"),
    ("8/255", "1e400", "expected a number or a fraction"),
    ("0.1]", "true]", "threat.epsilons[1]: expected a number or a fraction"),
    ("0.1]", '"16/510"]', "threat: epsilons lists a radius twice"),
    ("epochs = 1", 'method = "pgd"', "training.method: input should be 'standard', 'pgd-at' or 'trades'"),
    ("epochs = 1", 'method = "pgd-at"', "training: method 'pgd-at' needs a radius; give epsilon, such as '8/255'"),
    ("epochs = 1", 'epsilon = "8/255"', "training: epsilon is an adversary's; give method = 'pgd-at' or 'trades'"),
    ("epochs = 1", "steps = 7", "training: steps is an adversary's"),
    ("epochs = 1", 'method = "pgd-at"\nepsilon = 0.1\nbeta = 6', "training: beta weighs the divergence of"),
    ("epochs = 1", "learning_rates = []", "training.learning_rates: must not be empty"),
    ("epochs = 1", "weight_decay = true", "training.weight_decay: expected a number (got True)"),
    ("[models]", "[models]\ngain = inf", "models.gain: expected 'auto' or a positive number (got inf)"),
    ("mlp = {width", "mlp = {wdth", "unknown option of mlp 'wdth'; did you mean 'width'"),
    ("seed = [0, 1]", "seed = [9223372036854775808]", "factors.seed[0]: input should be less than"),
    ("beta = 4.0", 'beta = "4"', "parameters.beta: expected a number (got '4')"),
    ('"relu", "step"', '{name = "relu", label = "a\\u0000b"}', "must be printable text"),
    ('kind = "fgsm"', 'kind = "nois"', "attacks[1].kind: unknown kind 'nois'; did you mean 'noise'?"),
    ('kind = "fgsm"', "kind = 3", "attacks[1].kind: unknown kind '3'; it must be one of noise, fgsm, pgd"),
    ('kind = "fgsm"', 'loss = "ce"', "attacks[1].kind: missing; add it"),
    ("steps = 3", "steps = 3\nepsilons = [0.3]", "attacks[2].epsilons: 0.3 is none of the study's radii"),
    ("draws = 3", "draws = 3\nepsilons = []", "attacks[0].epsilons: must not be empty"),
    ('title = "Tiny"', "title = 3", "title: must be text in quotes (got 3)"),
    ('title = "Tiny"', 'title = "Tiny"\nscale = "full"', "scale: not a setting"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_every_mistake_names_file_key_and_remedy(tiny, right, wrong, message):
    assert right in TINY
    text = TINY.replace(right, wrong, 1)
    if wrong == "full = 3":
        text = "full = 3\n" + TINY.replace("[full]", "[unused]")
    tiny.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tiny)
    assert str(tiny) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("table", ["factors", "data", "models", "training", "threat"])
@pytest.mark.parametrize("value", ['"x"', "3", "true", "[]", "[[1]]", "nan", "1979-05-27"])
def test_something_else_in_the_place_of_a_table(tiny, table, value):
    others = TINY.replace(f"[{table}]", "[unused]")
    tiny.write_text(f"{table} = {value}\n{others}")
    with pytest.raises(ConfigError, match=rf"{table}: must be a table of settings"):
        load_config(tiny)


def test_a_problem_inside_a_list_is_told_once(tiny):
    tiny.write_text(TINY.replace("seed = [0, 1]", "seed = [true]"))
    with pytest.raises(ConfigError, match=r"1 problem\(s\).*\n  factors.seed\[0\]: input should be a valid integer"):
        load_config(tiny)


def test_all_problems_at_once(tiny):
    tiny.write_text(TINY.replace("epochs = 1", "epoch = 1").replace("draws = 3", "draws = 0"))
    with pytest.raises(
        ConfigError, match=r"(?s)2 problem\(s\).*training.epoch.*attacks\[0\].*draws|attacks.*training"
    ):
        load_config(tiny)


def test_finding_studies(tmp_path):
    with pytest.raises(ConfigError, match="unknown study 'activation-ablaton'; did you mean 'activation-ablation'"):
        find_study("activation-ablaton")
    with pytest.raises(ConfigError, match="no such study file"):
        find_study(str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="scale must be one of quick, full"):
        load_config(find_study("activation-ablation"), "huge")


def test_settings_cannot_be_changed(tiny):
    config = load_config(tiny)
    with pytest.raises(ValidationError, match="frozen"):
        config.threads = 2
