"""A study on sentences: its file, one small run, and what the report shows of changed words."""

import json
from dataclasses import replace

import pytest
import torch

import smoothness as sm
from smoothness.report import write_report
from smoothness.report.answer import format_255
from smoothness.report.page import build_page
from smoothness.report.render import render_html
from smoothness.report.sentences import Part, Sentence, SentenceWall, parts, sentence_pages
from smoothness.study import load_run, run_study
from smoothness.study.config import ConfigError, load_config
from smoothness.study.shipped import find_study

TINY = """
name = "tiny-texts"
title = "Tiny"
question = "Does it run?"
[factors]
activation = ["relu", "tanh"]
architecture = ["text_cnn"]
seed = [0]
[data]
name = "texts"
options = { path = "PATH", length = 6 }
examples = 4
[models]
text_cnn = { width = 6, depth = 1 }
[training]
epochs = 3
batch_size = 4
learning_rates = [0.01]
[threat]
norm = "l2"
epsilons = [0.0625, 0.5]
[[attacks]]
kind = "pgd"
steps = 3
[[attacks]]
kind = "cascade"
epsilons = [0.5]
[[analyzers]]
kind = "words"
cosine = 0.3
[quick]
"""
ROWS = [
    ("money", "send money to <b>ann</b>"),
    ("money", "pay my bill"),
    ("rain", "will it rain today"),
    ("rain", "snow"),
]


@pytest.fixture
def study(tmp_path):
    table = [
        "split\tlabel\ttext",
        *(f"{s}\t{label}\t{text}" for s in ("train", "dev", "test") for label, text in ROWS),
    ]
    (tmp_path / "mine.tsv").write_text("\n".join(table), encoding="utf-8")
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("PATH", (tmp_path / "mine.tsv").as_posix()), encoding="utf-8")
    return path


@pytest.mark.slow
def test_words_are_attacked_kept_and_shown(study, tmp_path):
    run_study(study, tmp_path / "run")
    run = load_run(tmp_path / "run")
    rows = run.frame[run.frame["quantity"] == "word_attack_success"]
    assert set(rows["bound"]) == {"lower"}
    assert len(rows) == 8
    cascade = run.frame[run.frame["attack"] == "cascade-standard"]
    assert set(cascade["epsilon"]) == {0.5}
    assert len(cascade) == 8
    pgd = run.frame[(run.frame["attack"] == "pgd-ce") & (run.frame["epsilon"] == 0.5)]
    assert len(pgd) == 8
    assert cascade["value"].sum() >= pgd["value"].sum()
    cell = str(run.cells[0]["cell"])
    kept = run.examples(cell)
    edits = json.loads(bytes(kept["sentences"].tolist()))
    data = sm.load_dataset("texts", path=str(tmp_path / "mine.tsv"), length=6)
    model_saw = [" ".join(before for before, _ in pairs) for pairs in edits]
    assert set(model_saw) <= {"send money to b ann b", "pay my bill", "will it rain today", "snow"}
    page = write_report(tmp_path / "run", tmp_path / "report").read_text(encoding="utf-8")
    assert 'class="sentences"' in page
    assert "0.0625/255" not in page
    assert "robust at 0.0625, %" in page
    shown = sentence_pages(run.cells, {str(c["cell"]): run.examples(str(c["cell"])) for c in run.cells})
    assert [wall.title for wall in shown] == ["text_cnn"]
    assert {name for name, _ in shown[0].rows} == {"relu", "tanh"}
    taken_out = sum(part.kind == "del" for _, row in shown[0].rows for one in row for part in one.parts)
    assert page.count("<del>") == taken_out == page.count("[taken out: ")
    assert len(data.test) == 4
    part = Part('<script>alert("x")</script>', "ins")
    wall = SentenceWall("s", (("relu", (Sentence((part,), "<i>a</i> → b", True),)),))
    marked = render_html(replace(build_page(run, []), sentences=[wall]))
    assert "<script>alert" not in marked
    assert "<i>a" not in marked
    assert "&lt;script&gt;alert" in marked


def test_parts_of_sentences():
    pairs = [["<script>", "<script>"], ["good", "<b>"], ["", "new"], ["old", ""]]
    stored = torch.tensor(list(json.dumps([pairs]).encode()), dtype=torch.uint8)
    tensors = {"sentences": stored, "labels": torch.tensor([0]), "adversarial_predictions": torch.tensor([1])}
    facts = {"cell": "c", "activation": "relu", "setting": "s", "seed": 0, "classes": ["a", "b"]}
    (wall,) = sentence_pages([facts], {"c": tensors})
    sentence = wall.rows[0][1][0]
    assert [(p.kind, p.text) for p in sentence.parts] == [
        ("", "<script>"), ("del", "good"), ("ins", "<b> new"), ("del", "old"),
    ]  # fmt: skip
    assert (sentence.result, sentence.fooled) == ("a → b", True)
    assert parts([["x", "x"]] * 50)[0].text == " ".join(["x"] * 40 + ["…"])


def test_settings_that_cannot_be(study):
    text = study.read_text(encoding="utf-8")
    study.write_text(text.replace("cosine = 0.3", "cosine = 3"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"analyzers\[0\]\.cosine"):
        load_config(study)
    wrong = 'kind = "good-words"\ndata = "digits"'
    study.write_text(text.replace('kind = "words"\ncosine = 0.3', wrong), encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown data set of sentences 'digits'"):
        load_config(study)
    on_images = text.replace('kind = "words"', 'kind = "words"').replace(
        text[text.index('name = "texts"') : text.index("examples")], 'name = "digits"\n'
    )
    study.write_text(on_images.replace("text_cnn", "cnn"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"attacks on words need embedded sentences \(length, 50\), got \(1, 8, 8\)"):
        run_study(study, study.parent / "run")


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_shipped_study(scale):
    config = load_config(find_study("intents"), scale)
    assert config.data.name == "clinc150"
    assert len(config.factors.activation) >= 4
    assert any(settings.kind == "words" for settings in config.analyzers)
    assert scale == "full" or any(settings.kind == "cascade" for settings in config.attacks)
    if scale == "full":
        assert config.factors.seed == (0, 1, 2, 3, 4)
        assert set(config.factors.architecture) == {"text_cnn", "transformer"}


def test_radii_of_images_and_others():
    assert [format_255(e) for e in (0.5 / 255, 8 / 255, 16 / 255, 0.125, 0.25, 1.0)] == [
        "0.5/255", "8/255", "16/255", "0.125", "0.25", "1",
    ]  # fmt: skip


@pytest.mark.slow
def test_good_words_in_a_study():
    from smoothness.study.word_attacks import GoodWordSettings

    data = sm.load_dataset("spam", length=40)
    model = sm.build_model("text_cnn", input_shape=data.input_shape, classes=2, width=8)
    sample = data.test.balanced(6)
    settings = GoodWordSettings(kind="good-words", candidates=5, max_words=2)
    success, _, queries = settings.measure(model, sample.inputs, sample.labels, 0, ())
    assert success.quantity == "good_words_success"
    assert "left_out" in success.details["status"] or "clean_error" in success.details["status"]
    assert (queries.values <= 2 + 1 + 5 + 4).all()
