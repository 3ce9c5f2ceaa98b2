"""The names that users rely on, and what importing costs."""

import subprocess
import sys

import pytest

import smoothness as sm


def test_names_resolve_and_are_documented():
    assert len(set(sm.__all__)) == len(sm.__all__)
    for name in sm.__all__:
        value = getattr(sm, name)
        assert name == "__version__" or value.__doc__, f"{name} has no docstring"
    assert set(dir(sm)) == set(sm.__all__)


def test_no_function_shares_a_subpackages_name():
    packages = {"activations", "analyzers", "attacks", "bounds", "data", "models", "report", "study", "training"}
    assert not packages & set(sm.__all__)


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'smoothness' has no attribute 'activaton'"):
        sm.activaton  # noqa: B018


def test_importing_stays_light():
    code = "import sys, smoothness; print(sorted({'torch', 'pandas', 'seaborn', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
    code = "import sys, smoothness as sm; sm.PGD; print('seaborn' in sys.modules, 'pandas' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "False False"


def test_names_of_sentences_and_classical_models():
    names = {"EstimatorModel", "GoodWordInsertion", "TextDataset", "Vocabulary", "WordResult", "WordSubstitution"}
    assert names | {"build_classical", "glove", "good_words", "list_classical"} <= set(sm.__all__)
    from smoothness import attacks, data, models

    for package in (attacks, data, models):  # one object under both names
        assert all(getattr(sm, name) is getattr(package, name) for name in set(sm.__all__) & set(package.__all__))
