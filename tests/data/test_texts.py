"""Sentences: the tokenizer, the shipped sets, the vocabulary, and tables that are wrong."""

import csv
import gzip
from importlib.resources import files

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

import smoothness as sm
from smoothness.vocabulary import EDGE, NEIGHBOUR, PADDING, UNKNOWN, Vocabulary, glove, is_word, tokenize

COUNTS = {  # of the data's own table: training, validation, test, classes
    "clinc150": ("clinc150.tsv.gz", 18_000, 2_250, 2_250, 150),
    "banking77": ("banking77.tsv.gz", 9_003, 1_000, 3_080, 77),
    "spam": ("spamassassin.tsv.gz", 3_832, 547, 1_096, 2),
}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("What's my APR?", ["what", "s", "my", "apr", "?"]),
        ("401k; $5,000!", ["401", "k", "$", "5", "000", "!"]),
        ("  \n—…", []),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


@pytest.mark.parametrize("name", COUNTS)
def test_shipped_sets(name):
    file, *counts, classes = COUNTS[name]
    data = sm.load_dataset(name)
    assert [len(split) for split in (data.train, data.validation, data.test)] == counts
    assert len(data.classes) == classes
    assert data.bounds is None
    assert data.input_shape == (data.length, 50)
    with gzip.open(files("smoothness.data").joinpath("files", file), "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    test = [(label, text) for split, label, text in rows if split == "test"]
    assert [(data.classes[int(k)], text) for k, text in zip(data.test.labels, data.test.texts, strict=True)] == test
    for split in (data.train, data.validation, data.test):
        assert sorted(set(split.labels.tolist())) == list(range(classes))
        assert split.inputs.dtype == torch.float32
        assert split.inputs.isfinite().all()
        lengths = [min(len(tokenize(text)) or 1, data.length) for text in split.texts]
        assert is_word(split.inputs).sum(dim=1).tolist() == lengths
    if name == "spam":
        everything = torch.cat([data.train.labels, data.validation.labels, data.test.labels]).bincount().tolist()
        assert dict(zip(data.classes, everything, strict=True)) == {"ham": 4_084, "spam": 1_391}


def test_balanced_sample_keeps_its_sentences():
    data = sm.load_dataset("banking77")
    sample = data.test.balanced(77)
    assert torch.equal(data.encode(sample.texts), sample.inputs)


def test_unit_of_the_embeddings():
    with np.load(files("smoothness.data").joinpath("files", "glove_6b_50d_slice.npz"), allow_pickle=False) as arrays:
        vectors = arrays["vectors"].astype(np.float64)
    some = np.random.default_rng(0).permutation(len(vectors))[:300]
    nearest = cKDTree(vectors).query(vectors[some], k=2)[0][:, 1]  # a second implementation
    words = glove()
    ours = torch.cdist(words.vectors[some], words.vectors)
    ours[torch.arange(len(some)), torch.from_numpy(some)] = torch.inf
    np.testing.assert_allclose(ours.amin(dim=1) * NEIGHBOUR, nearest, rtol=1e-4)
    assert words.neighbour_distance() == pytest.approx(1, rel=1e-6)


def test_padding_lies_far_from_every_word():
    means = glove().vectors.mean(dim=1)
    assert means.abs().max() < 0.5
    assert PADDING + 3.9 < EDGE < -3.9
    x = glove().encode(["transfer money"], 5)
    assert is_word(x).tolist() == [[1, 1, 0, 0, 0]]
    for shift in (torch.full_like(x, 3.4), torch.full_like(x, -3.4)):
        assert is_word(x + shift).tolist() == [[1, 1, 0, 0, 0]]


def test_sentences_come_back():
    words = glove()
    x = words.encode(["Pay my bill", "xqzzy bill"], 4)
    assert words.decode(x) == [["pay", "my", "bill"], [UNKNOWN, "bill"]]
    assert torch.equal(x[1, 0], words.vectors.mean(dim=0))
    with pytest.raises(ValueError, match=r"row 0: position 1 holds no word's vector; pass clean inputs"):
        words.decode(x + torch.tensor([[[0.0], [0.01], [0.0], [0.0]]]))


def test_neighbours_against_brute_force():
    words = glove()
    own = words.vectors[words.places["money"]].double().numpy()
    every = words.vectors.double().numpy()
    cosines = every @ own / np.linalg.norm(every, axis=1) / np.linalg.norm(own)
    order = [words.words[k] for k in np.argsort(-cosines) if words.words[k] != "money" and cosines[k] >= 0.7]
    assert words.neighbours("money", 6, 0.7) == order[:6]
    assert words.neighbours("xqzzy", 6, 0.7) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["pay", ""], "row 1: the sentence is empty; expected at least one word, drop the row"),
        (["pay", "?! xqzzy vvvv".replace("?!", "")], r"row 1: none of the words is known \('xqzzy vvvv'\); expected"),
    ],
)
def test_sentences_that_cannot_be_read(texts, message):
    with pytest.raises(ValueError, match=message):
        glove().encode(texts, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train\t\thello there", r"mine.tsv, line 2: the label is missing; add it, or drop the row"),
        ("train\tyes\t ", r"mine.tsv, line 2: the text ' ' holds no word; drop the row"),
        ("train\tyes", r"mine.tsv, line 2: expected split, label and text with tabs between, got 2 columns"),
        ("tran\tyes\thello", r"mine.tsv, line 2: expected split train, dev or test, got 'tran'"),
        ("dev\tmaybe\thello", r"mine.tsv: label 'maybe' of split 'dev' has no row in train; add some"),
        ("test\tno\txqzzy vvvv", r"mine.tsv, line 2: none of the first 24 words is known \('xqzzy vvvv'\); expected"),
        ("", r"mine.tsv, line 2: expected split, label and text with tabs between, got 1 columns"),
    ],
)
def test_tables_that_are_wrong(tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    rows = ["split\tlabel\ttext", line, "train\tyes\thello", "dev\tyes\thi there", "test\tyes\thow are you"]
    rows += ["train\tno\tgood bye"]
    (tmp_path / "mine.tsv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        sm.load_dataset("texts", path="mine.tsv")
    (tmp_path / "mine.tsv").write_text("\n".join([rows[0], *rows[2:]]), encoding="utf-8")
    assert sm.load_dataset("texts", path="mine.tsv").classes == ("no", "yes")
    (tmp_path / "mine.tsv").write_text("label\ttext", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine.tsv, line 1: expected the columns split, label, text"):
        sm.load_dataset("texts", path="mine.tsv")


def test_files_that_are_no_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.tsv is no file; give path, of a table that exists"):
        sm.load_dataset("texts", path="gone.tsv")
    with pytest.raises(FileNotFoundError, match="is no file"):
        sm.load_dataset("texts", path=tmp_path)
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(b"split\tlabel\ttext\n" * 50)[:-12])
    with pytest.raises(ValueError, match=r"cut\.tsv\.gz is damaged or cut short"):
        sm.load_dataset("texts", path="cut.tsv.gz")
    (tmp_path / "old.tsv").write_bytes("split\tlabel\ttext\ntrain\tyes\tcafé\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"old\.tsv, line 2: expected UTF-8 .*; save the table as UTF-8"):
        sm.load_dataset("texts", path="old.tsv")
    rows = ["split\tlabel\ttext", *(f"{split}\tyes\thello" for split in ("train", "dev", "test"))]
    (tmp_path / "one.tsv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"one\.tsv: there is one class, 'yes'; at least two are needed"):
        sm.load_dataset("texts", path="one.tsv")
    with pytest.raises(ValueError, match="length must be a whole number of at least 1, got 0"):
        sm.load_dataset("texts", path="one.tsv", length=0)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("pay my bill", r"sentences must be a list, got the one text 'pay my bill'; write \[text\]"),
        (["pay", None], r"row 1: expected a text or a list of tokens, got NoneType; drop the row"),
        ([["pay"], [3]], r"row 1: expected a text or a list of tokens, got list; drop the row"),
    ],
)
def test_what_is_no_sentence(texts, message):
    with pytest.raises(TypeError, match=message):
        glove().encode(texts, 4)


def test_inputs_of_another_shape_are_not_decoded():
    with pytest.raises(ValueError, match=r"expected inputs \(n, length, 50\) of encode, got shape \(2, 4, 40\)"):
        glove().decode(torch.zeros(2, 4, 40))


def test_vocabularies_that_are_wrong():
    with pytest.raises(ValueError, match="2 words need as many vectors"):
        Vocabulary(("a", "b"), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="words must differ"):
        Vocabulary(("a", "a"), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="near the padding's"):
        Vocabulary(("a", "b"), torch.full((2, 4), -7.0))
