"""The plane of every network: pictures side by side, films along the dial, and both in the page."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from smoothness.report.figures.slices import Planes, Slice, common_scales, draw_bends, draw_slices
from smoothness.report.slices import films, slice_plates, slices
from smoothness.report.style import figure_style
from smoothness.report.write import write_page
from smoothness.study import Run
from tests.report.synthetic import synthetic_run
from tests.report.test_write import HOSTILE, Tags

SIDE = 24
LEVELS = ("relu", "relu@sigma=0.5", "relu@sigma=2", "step")
NAMES = ("<b>coat</b>", "shoe", "hat")


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with figure_style():
        yield


def tensors(kind: str, scale: float = 1.0) -> dict[str, Tensor]:
    """A plane on [0, 4]²: flat, affine with a kink at u = 2, or a bowl."""
    axis = (torch.arange(SIDE) + 0.5) * 4 / SIDE
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    flat = torch.zeros_like(u)
    slope = {"flat": (flat, flat), "kink": (torch.where(u > 2, 3.0, 1.0), flat), "bowl": (u, v)}[kind]
    return {
        "slice_classes": (u > 2).to(torch.uint8),
        "slice_slope": scale * torch.stack(slope).float(),
        "slice_corners": torch.tensor([[1.0, 1.0], [3.0, 1.0], [3.0, 3.0]]),
        "slice_bounds": torch.tensor([0.0, 4.0, 0.0, 4.0]),
    }


KINDS = {"relu": "kink", "relu@sigma=0.5": "bowl", "relu@sigma=2": "bowl", "step": "flat"}


def run_with_slices() -> tuple[Run, dict[str, dict[str, Tensor]]]:
    names = dict(zip(("relu", "gelu", "tanh", "step"), LEVELS, strict=True))
    run = synthetic_run(tuple(names), ("mlp",), seeds=2, examples=8)
    cells = []
    for cell in run.cells:
        label = names[str(cell["activation"])]
        cells.append({**cell, "activation": label, "cell": f"mlp/{label}/{cell['seed']}", "classes": NAMES})
    activation = run.frame["activation"].map(names)
    frame = run.frame.assign(activation=activation, cell="mlp/" + activation + "/" + run.frame["seed"].astype(str))
    examples = {str(cell["cell"]): tensors(KINDS[str(cell["activation"])]) for cell in cells}
    return dataclasses.replace(run, cells=tuple(cells), frame=frame), examples


def test_slices_are_per_margin_and_of_the_first_seed() -> None:
    run, examples = run_with_slices()
    examples["mlp/relu/1"] = tensors("flat")
    found = slices(run.cells, examples, run.frame, {"relu": "relu [relu]"})
    assert [one.label for one in found["mlp"]] == ["step", "relu [relu]", "relu@sigma=0.5", "relu@sigma=2"]
    relu = found["mlp"][1]
    rows = run.frame[(run.frame["cell"] == "mlp/relu/0") & (run.frame["quantity"] == "margin")]["value"]
    assert relu.slope[0].max() == pytest.approx(3 / rows[rows > 0].median())
    assert relu.flat == 0
    assert found["mlp"][0].flat == 1
    del examples["mlp/relu/0"]["slice_slope"]
    assert slices(run.cells, examples, run.frame, {})["mlp"][1].flat == 1  # the next seed's
    assert slices(run.cells, {}, run.frame, {}) == {}


def one(kind: str, label: str = "relu") -> Slice:
    classes, slope, corners, _ = (part.numpy() for part in tensors(kind).values())
    return Slice(label, classes, slope, corners, (0.0, 4.0, 0.0, 4.0), NAMES)


def test_bends_are_where_the_slope_changes() -> None:
    pitch = 4 / SIDE
    kink, bowl, flat = one("kink").bend, one("bowl").bend, one("flat").bend
    assert np.argwhere(kink[5]).flatten().tolist() == [SIDE // 2 - 1, SIDE // 2]
    assert kink.max() == pytest.approx(2 / (2 * pitch))
    assert bowl == pytest.approx(np.full_like(bowl, 2**0.5), rel=1e-4)
    assert flat.max() == 0


def test_all_pictures_share_their_scales() -> None:
    several = [one("kink"), one("bowl", "gelu"), one("flat", "step")]
    planes = Planes(several, common_scales(several))
    for draw in (draw_slices, draw_bends):
        for narrow in (False, True):
            figure = draw(planes, narrow=narrow)
            pictures = [ax for ax in figure.axes if ax.get_title(loc="left")]
            assert [ax.get_title(loc="left") for ax in pictures] == ["relu", "gelu", "step"]
            assert all({NAMES[0], "shoe"} <= {text.get_text() for text in ax.texts} for ax in pictures)
    slopes = [np.asarray(ax.images[0].get_array()) for ax in draw_slices(planes).axes[:3]]
    assert (slopes[2] == 1).all()  # a plateau is as the paper
    assert len(np.unique(slopes[0].reshape(-1, 3), axis=0)) == 2  # two linear regions
    full = planes.scales.full
    assert full == pytest.approx(np.median([3.0, np.quantile(one("bowl").size, 0.9)]))
    assert draw_slices(Planes([], common_scales([]))).axes  # a line of text


def test_plates_leave_the_dial_to_the_film() -> None:
    run, examples = run_with_slices()
    found = slices(run.cells, examples, run.frame, {})
    steep, bends = slice_plates(found)
    assert (steep.slug, bends.slug) == ("slices", "bends")
    assert "step 100 %, relu 0 %" in steep.alt
    assert "sigma" not in steep.alt + bends.alt
    (film,) = films(found)
    assert [frame.label for frame in film.frames] == ["σ = 2", "σ = 0.5", "σ = 0 (relu itself)"]
    pictures = [picture for frame in film.frames for picture in frame.pictures]
    for picture in pictures:
        image = Image.open(io.BytesIO(picture.png))
        assert (image.format, image.size) == ("PNG", (444, 444))
    assert len({picture.png for picture in pictures if picture.name == "slope"}) == 3
    assert films(found) == [film]  # to the byte
    assert films({"mlp": [s for s in found["mlp"] if "@" not in s.label]}) == []


def write(run: Run, examples: dict[str, dict[str, Tensor]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Run, "examples", lambda self, label: examples.get(label, {}))
    return write_page(run, [], folder).read_text()


def test_the_page_holds_every_picture_and_runs_without_its_script(tmp_path: Path, monkeypatch) -> None:
    run, examples = run_with_slices()
    text = write(run, examples, tmp_path, monkeypatch)
    tags = Tags(text)
    assert tags.open == []
    films = [a for name, a in tags.found if name == "div" and a.get("class") == "film"]
    assert [film["id"] for film in films] == ["film-1"]
    assert "figure" not in {name for name, a in tags.found if a.get("id") == "film-1"}
    assert sum(a.get("class") == "frame" for a in tags.all("div")) == 3  # nothing hides them but the script
    assert not re.search(r'class="[^"]*(now|live)', text)
    pictures = {p.name for p in (tmp_path / "figures").glob("film-*.png")}
    assert pictures == {f"film-1-{k}-{name}.png" for k in (1, 2, 3) for name in ("slope", "bends")}
    markdown = (tmp_path / "report.md").read_text()
    assert all(f"(figures/{name})" in markdown for name in pictures)
    assert {"figures/slices.svg", "figures/bends.svg"} <= set(re.findall(r"\]\((.+?)\)", markdown))
    assert "&lt;b&gt;coat" not in text  # names of classes are outlines in a picture, and nowhere else


def test_hostile_labels_do_no_harm(tmp_path: Path, monkeypatch) -> None:
    run, examples = run_with_slices()
    name = HOSTILE[0]
    frame = run.frame.assign(activation=run.frame["activation"].str.replace("relu", name, regex=False))
    cells = tuple({**cell, "activation": cell["activation"].replace("relu", name)} for cell in run.cells)
    text = write(dataclasses.replace(run, frame=frame, cells=cells), examples, tmp_path, monkeypatch)
    assert Tags(text).open == []
    assert text.count("<script>") == 1
    assert f"From smooth to sharp: {name}" not in text


def test_what_was_not_measured_has_no_figure_and_one_line(tmp_path: Path) -> None:
    run = synthetic_run(("relu", "tanh"), ("mlp",), seeds=2, examples=8)
    kept: pd.DataFrame = run.frame[~run.frame["quantity"].isin(["jacobian_norm", *ROUGHNESS])]
    text = write_page(dataclasses.replace(run, frame=kept), [], tmp_path).read_text()
    slugs = [a["id"] for a in Tags(text).all("figure")]
    assert slugs == ["activations", "robust-accuracy", "clean-against-robust"]
    line = "Not measured in this run, and so without a figure: input gradients; kinks and jumps."
    assert line in text
    assert line in (tmp_path / "report.md").read_text()


ROUGHNESS = ("kink_density", "slope_jump", "value_jump")
