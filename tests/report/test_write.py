"""The written report: complete, harmless, honest, the same every time."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from smoothness.consistency import Check, check_frame, check_twins
from smoothness.report import page as page_module
from smoothness.report.figures import draw_robust_accuracy
from smoothness.report.page import Page, build_page
from smoothness.report.provenance import flatten, scrub
from smoothness.report.style import figure_style
from smoothness.report.success import robust_curves
from smoothness.report.write import write_page
from smoothness.study import Run
from tests.report.synthetic import synthetic_config, synthetic_run

HOSTILE = ("<script>alert(1)</script>", "=cmd()|'/C calc'!A0", '"></td><img src=x onerror=y>', "{{ 7 * 7 }} $x$ |`*")
FILES = {
    "index.html", "report.md", "results.csv", "figures/activations.svg", "figures/robust-accuracy.svg",
    "figures/jacobian-norms.svg", "figures/kinks-and-jumps.svg", "figures/clean-against-robust.svg",
    "results.parquet", "results.tex", "frame.parquet",
}  # fmt: skip
DATA_URI = r"data:(image/(svg\+xml|png)|text/[\w.-]+|application/[\w.-]+);base64,"


class Tags(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def checks(run: Run) -> list[Check]:
    return [*check_frame(run.frame), check_twins(run.cells)]


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run()


@pytest.fixture(scope="module")
def written(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(run, checks(run), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "plates", lambda *_: [])
        return build_page(run, [])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out: they take nearly all the time."""
    monkeypatch.setattr(page_module, "plates", lambda *_: [])


@pytest.fixture(scope="module")
def small() -> Run:
    return synthetic_run(("relu", "staircase"), ("mlp",), seeds=2, examples=12)


def relabelled(run: Run, names: dict[str, str]) -> Run:
    frame = run.frame.assign(activation=run.frame["activation"].replace(names))
    cells = tuple({**cell, "activation": names.get(cell["activation"], cell["activation"])} for cell in run.cells)
    return dataclasses.replace(run, frame=frame, cells=cells)


def test_all_files_are_there(written: Path) -> None:
    folder = written.parent
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == FILES
    markdown = (folder / "report.md").read_text()
    assert set(re.findall(r"\]\((.+?)\)", markdown)) == {name for name in FILES if name.endswith("svg")}


def test_html_nests_and_refers_to_nothing_outside(written: Path) -> None:
    text = written.read_text()
    tags = Tags(text)
    assert tags.open == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert {"link", "iframe", "object"}.isdisjoint(name for name, _ in tags.found)
    assert tags.all("script") == [{}]
    for name, attributes in tags.found:
        for key in ("src", "srcset", "href"):
            if key in attributes:
                assert re.match(rf"#|{DATA_URI}", attributes[key] or ""), (name, key)
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in tags.all("a") if "download" not in a} <= {f"#{name}" for name in ids}


def test_the_policy_names_the_one_script(written: Path) -> None:
    text = written.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text


def test_downloads_hold_the_files_beside_the_page(written: Path, run: Run) -> None:
    links = {a["download"]: a["href"] or "" for a in Tags(written.read_text()).all("a") if "download" in a}
    assert set(links) == {"results.csv", "results.parquet", "results.tex"}
    for name, link in links.items():
        assert base64.b64decode(link.partition(",")[2]) == (written.parent / str(name)).read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(written.parent / "frame.parquet"), run.frame)


def test_five_figures_with_alternative_text_and_captions(written: Path) -> None:
    text = written.read_text()
    images = Tags(text).all("img")
    assert len(images) == 5
    assert all(len(image["alt"] or "") > 40 for image in images)
    assert text.count("<figcaption>") == 5
    assert all(header.get("scope") in ("col", "row") for header in Tags(text).all("th"))
    assert text.count("<caption>") == text.count("<table")


def test_quick_scale_gives_no_verdict(page: Page) -> None:
    assert page.answer.notice == "Quick scale: small data, 3 seeds; a demonstration, no verdict."
    assert not page.answer.verdict
    assert page.comparison is None


@pytest.mark.usefixtures("undrawn")
def test_full_scale_compares_with_intervals(small: Run) -> None:
    config = synthetic_config(("relu", "staircase"), ("mlp",), 2, scale="full")
    page = build_page(dataclasses.replace(small, config=config), [])
    assert page.answer.verdict
    assert page.comparison is not None
    assert "certified bounds" in page.answer.notice


def test_masked_figures_are_shown_as_masked_beside_surrogate_and_noise(written: Path, page: Page) -> None:
    by_name = {
        (row[0].text, row[1].text): dict(zip(page.masking.columns, row, strict=True)) for row in page.masking.rows
    }
    assert by_name["mlp", "staircase"]["native"].text.startswith("masked (")
    assert by_name["mlp", "staircase"]["masked?"].text == "masked"
    assert by_name["mlp", "relu"]["masked?"].text == "no"
    text = written.read_text().replace("\u00a0", " ")
    assert re.search(r"For staircase, native gradients are masked \(exactly zero for 100 % of examples\)", text)
    assert re.search(r"surrogate \d+\.\d ± \d+\.\d %, noise \d+\.\d ± \d+\.\d %; the headline uses the union", text)


def test_answer_holds_the_numbers_of_the_table(page: Page) -> None:
    column = page.summary.columns.index("robust at 8/255, %")
    found = {row[1].text: row[column].text for row in page.summary.rows if row[0].text == "mlp"}
    text = dict(page.answer.paragraphs)["mlp"].replace("\u00a0", " ")
    assert f"{found['staircase']} % for staircase (highest)" in text
    assert "upper bound" in page.summary.caption


def test_two_writes_give_the_same_bytes_whatever_the_order_of_rows(small: Run, tmp_path: Path) -> None:
    shuffled = dataclasses.replace(small, frame=small.frame.sample(frac=1, random_state=0).reset_index(drop=True))
    write_page(small, checks(small), tmp_path / "a")
    with mpl.rc_context({"font.size": 20, "axes.grid": False, "svg.hashsalt": None}):
        write_page(shuffled, checks(small), tmp_path / "b")
    for name in FILES - {"frame.parquet"}:  # that one keeps the run's order
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_matplotlib_settings_are_restored(small: Run) -> None:
    before = dict(mpl.rcParams)
    with figure_style():
        draw_robust_accuracy(robust_curves(small.frame).assign(norm="max-norm"))
    assert dict(mpl.rcParams) == before


def test_hostile_labels_do_no_harm(tmp_path: Path) -> None:
    run = synthetic_run(("relu", "gelu", "tanh", "staircase"), ("mlp",), seeds=2, examples=12)
    hostile = relabelled(run, dict(zip(("relu", "gelu", "tanh", "staircase"), HOSTILE, strict=True)))
    hostile = dataclasses.replace(hostile, missing=(HOSTILE[0],), command=f"smoothness run {HOSTILE[0]} ```")
    index = write_page(hostile, [Check(HOSTILE[0], False, HOSTILE[2])], tmp_path)
    text = index.read_text()
    tags = Tags(text)
    assert tags.open == []
    assert tags.all("script") == [{}]
    assert len(tags.all("img")) == 4  # none of these is in the catalogue, so that there is no curve to draw
    tex = (tmp_path / "results.tex").read_text()
    assert r"\textless{}script\textgreater{}alert" in tex
    assert r"\$x\$" in tex
    assert "{{ 7 * 7 }}" in text
    markdown = (tmp_path / "report.md").read_text()
    assert "<script" not in markdown.replace("smoothness run <script>alert(1)</script>", "")
    assert "````sh" in markdown
    with (tmp_path / "results.csv").open(newline="") as file:
        labels = [row["activation"] for row in csv.DictReader(file)]
    assert "'" + HOSTILE[1] in labels


@pytest.mark.usefixtures("undrawn")
def test_unfinished_cells_and_violations_stand_at_the_top(small: Run, tmp_path: Path) -> None:
    partial = dataclasses.replace(small, missing=("mlp/gelu/0", "mlp/gelu/1"))
    index = write_page(partial, [Check("twins agree", False, "2 of 4")], tmp_path)
    top = index.read_text().split("</header>")[0]
    assert "2 cells are not finished" in top
    assert "mlp/gelu/1" in top
    assert "1 hard invariant is violated" in top
    assert "Incomplete run" in top
    assert "mlp/gelu/1" in (tmp_path / "report.md").read_text().split("## The answer")[0]


@pytest.mark.usefixtures("undrawn")
def test_left_out_rows_are_reported(small: Run, tmp_path: Path) -> None:
    frame = small.frame.copy()
    frame.loc[frame.index[frame["quantity"] == "jacobian_norm"][:3], "valid"] = False
    index = write_page(dataclasses.replace(small, frame=frame), [], tmp_path)
    assert re.search(r'<th scope="row">jacobian_norm</th><td class="">3</td>', index.read_text())


def test_a_run_without_kinks_attacks_or_spread_is_still_reported(small: Run, tmp_path: Path) -> None:
    kept = small.frame["quantity"].isin(["clean_accuracy", "correct", "margin"]) & (small.frame["seed"] == 0)
    write_page(dataclasses.replace(small, frame=small.frame[kept]), [], tmp_path)
    assert "was measured in this run" in (tmp_path / "report.md").read_text()


def test_an_empty_run_is_refused(small: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no valid measurement"):
        write_page(dataclasses.replace(small, frame=small.frame.iloc[:0]), [], tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("undrawn")
def test_own_files_are_replaced_others_kept(small: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = write_page(small, [], tmp_path)
    first.write_text(first.read_text() + "stale")
    write_page(small, [], tmp_path)
    assert "stale" not in first.read_text()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["index.html", "results.csv"])
def test_foreign_files_are_never_replaced(small: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("somebody's own")
    with pytest.raises(FileExistsError, match="not from a report"):
        write_page(small, [], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.usefixtures("undrawn")
def test_a_file_instead_of_a_folder(small: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="needs a folder"):
        write_page(small, [], tmp_path / "file")
    with pytest.raises(OSError, match="cannot write the report"):
        write_page(small, [], tmp_path / "file" / "below")


@pytest.mark.usefixtures("undrawn")
def test_no_machine_paths(small: Run, tmp_path: Path) -> None:
    told = dataclasses.replace(small, command="smoothness run /home/ann/secret/my.toml --out ~/runs/a")
    index = write_page(told, [], tmp_path)
    for name in ("index.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "ann" not in re.findall(r"smoothness run .*", text)[0]
        assert str(tmp_path) not in text
    assert "my.toml" in index.read_text()
    assert scrub("a / b, 8/255, C:\\Users\\ann\\x.toml") == "a / b, 8/255, …/x.toml"
    assert dict(flatten({"data": {"folder": "/mnt/big/fashion"}}))["data.folder"] == "…/fashion"


@pytest.mark.usefixtures("undrawn")
def test_labels_are_completed_by_the_catalogues_spelling(tmp_path: Path) -> None:
    run = synthetic_run(("relu", "tanh"), ("mlp",), seeds=2, examples=12)
    levels = ({"name": "softplus", "label": "relu", "parameters": {"beta": 8.0}}, "tanh")
    page = build_page(dataclasses.replace(run, config=synthetic_config(levels, ("mlp",), 2)), [])
    assert [row[1].text for row in page.summary.rows] == ["relu [softplus(beta=8)]", "tanh"]


def test_results_hold_one_row_per_group(written: Path) -> None:
    results = pd.read_csv(written.parent / "results.csv")
    assert len(results) == 8
    assert results.groupby("activation")["masked"].all().to_dict()["staircase"]
    assert not results.loc[results["activation"] != "staircase", "masked"].any()
