"""The catalogue's page and figures against the facts and the files in docs/activations."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from smoothness.activations.catalogue import ACTIVATIONS, FAMILIES
from smoothness.activations.facts import ActivationFacts
from smoothness.report.catalogue import Entry, entries, records, write_catalogue
from smoothness.report.catalogue.curves import Curve, ends, family_curves, joined
from smoothness.report.catalogue.figure import family_svg
from smoothness.report.catalogue.page import MARK, families, render_page, slug_of

Families = dict[str, list[Entry]]
DOCS = Path(__file__).parents[2] / "docs" / "activations"


@pytest.fixture(scope="module")
def grouped() -> Families:
    return families()


def _curve(grouped: Families, family: str, name: str) -> Curve:
    (curve,) = [c for c in family_curves(grouped[family])[0] if name in c.names]
    return curve


def test_the_page_in_docs_is_not_stale(grouped: Families) -> None:
    assert (DOCS / "README.md").read_text(encoding="utf-8") == render_page(grouped), "run `make docs`"
    figures = {path.stem for path in DOCS.glob("*.svg")}
    assert figures >= {slug_of(family) for family in FAMILIES}, "run `make docs`"


def test_the_page_names_every_activation_with_its_source(grouped: Families) -> None:
    page = render_page(grouped)
    assert page.startswith(MARK)
    for entry in entries():
        assert f"- **{entry.name}**: " in page
        assert entry.description
    assert "\\`" not in page
    assert "nan" not in page


def test_records_hold_every_fact() -> None:
    every = {field.name for field in fields(ActivationFacts)} - {"function", "derivative"}
    listed = records()
    assert [record["name"] for record in listed] == list(ACTIVATIONS)
    for record in listed:
        assert every <= set(record)
    by_name = {str(record["name"]): record for record in listed}
    assert by_name["maxout"]["slope_variation"] is None
    assert by_name["relu"]["polynomial_pieces"] == [[0.0, 0.0], [0.0, 1.0]]
    assert by_name["relu"]["smoothness_class"] == 0
    assert by_name["tanh"]["smoothness_class"] == "inf"


def test_value_jumps_are_gaps_with_the_value_taken(grouped: Families) -> None:
    step = _curve(grouped, "steps", "step")
    _, y = joined(step, 0)
    assert np.isnan(y).sum() == 1
    assert set(y[~np.isnan(y)]) == {0.0, 1.0}
    assert not np.any(np.abs(np.diff(y)) > 0.5)  # NaN between: nothing connects both sides
    assert ends(step, 0) == [(0.0, 0.0, True), (0.0, 1.0, False)]
    assert ends(step, 1) == []
    shrink = _curve(grouped, "shrinkage", "hardshrink")
    assert [closed for _, _, closed in ends(shrink, 0)] == [False, True, True, False]


def test_a_kink_breaks_the_slope_and_not_the_value(grouped: Families) -> None:
    relu = _curve(grouped, "rectifiers", "relu")
    assert relu.names == ("relu", "kinked_linear")
    assert not np.isnan(joined(relu, 0)[1]).any()
    assert ends(relu, 1) == [(0.0, 0.0, False), (0.0, 1.0, False)]


def test_second_derivatives_are_those_of_closed_forms(grouped: Families) -> None:
    z, y = joined(_curve(grouped, "sigmoidal", "tanh"), 2)
    exact = -2 * np.tanh(z) / np.cosh(z) ** 2
    np.testing.assert_allclose(y[1:-1], exact[1:-1], atol=1e-6)


def test_activations_of_several_features_are_one_output_against_one_input(grouped: Families) -> None:
    winners = _curve(grouped, "vector", "k_winners")
    assert [(round(b.position, 6), b.order) for b in winners.breaks] == [(1.0, -1)]
    assert [closed for _, _, closed in ends(winners, 0)] == [False, True]  # of equals both stay
    z, y = joined(_curve(grouped, "vector", "maxout"), 0)
    np.testing.assert_allclose(y, np.maximum(z, 0.5), atol=1e-4)


def test_figures_are_the_same_in_another_process_and_leave_no_trace(grouped: Families) -> None:
    before = dict(mpl.rcParams)
    here = hashlib.sha256(family_svg(grouped["shrinkage"])).hexdigest()
    assert dict(mpl.rcParams) == before
    code = (
        "import hashlib; from smoothness.report.catalogue.figure import family_svg; "
        "from smoothness.report.catalogue.page import families; "
        "print(hashlib.sha256(family_svg(families()['shrinkage'])).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_writing_replaces_its_own_files_and_no_others(
    tmp_path: Path, grouped: Families, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoothness.report.catalogue.write.families", lambda: {"vector": grouped["vector"]})
    folder = tmp_path / "a" / "b"
    page = write_catalogue(folder)
    (folder / "mine.svg").write_text("mine")
    first = page.read_bytes()
    page.write_bytes(MARK.encode() + b" old")
    write_catalogue(folder)
    assert page.read_bytes() == first
    assert (folder / "mine.svg").read_text() == "mine"
    page.unlink()
    with pytest.raises(FileExistsError, match="is not from a catalogue"):
        write_catalogue(folder)
