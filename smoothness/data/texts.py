"""Sentences with labels: the shipped sets, and tables of your own."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch

from smoothness._checks import check_count
from smoothness.data.dataset import Dataset, Split
from smoothness.vocabulary import UNKNOWN, Vocabulary, glove, tokenize

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, eq=False)
class TextDataset(Dataset):
    """Sentences as embeddings (n, length, 50) in units of the mean nearest-neighbour distance, without bounds.

    Attributes:
        vocabulary: what the embeddings were looked up in; frozen, no parameter of any model.
        length: tokens of a sentence that are kept; shorter ones are padded (`smoothness.vocabulary.is_word`).
    """

    vocabulary: Vocabulary
    length: int

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Inputs of sentences of your own; errors as `Vocabulary.encode`."""
        return self.vocabulary.encode(sentences, self.length)


def load_clinc150(length: int = 24) -> TextDataset:
    """CLINC150: 18,000 / 2,250 / 2,250 utterances with 150 intents.

    >>> data = load_clinc150()
    >>> data.test.texts[0], data.classes[int(data.test.labels[0])], data.input_shape
    ('is there another person you work for', 'who_do_you_work_for', (24, 50))
    """
    return _shipped("clinc150", "clinc150.tsv.gz", length, "CLINC150, Larson et al. 2019, CC BY 3.0")


def load_banking77(length: int = 40) -> TextDataset:
    """BANKING77: 9,003 / 1,000 / 3,080 questions with 77 intents.

    The texts of two training rows are a lone quotation mark, read as one unknown word.
    """
    return _shipped("banking77", "banking77.tsv.gz", length, "BANKING77, Casanueva et al. 2020, CC BY 4.0")


def load_spam(length: int = 120) -> TextDataset:
    """Ham (0) and spam (1): 3,832 / 547 / 1,096 messages of the SpamAssassin public corpus, without headers."""
    return _shipped("spam", "spamassassin.tsv.gz", length, "Apache SpamAssassin public corpus, PDDL and CC0")


def load_texts(path: str | os.PathLike[str], length: int = 24, source: str = "your own table") -> TextDataset:
    """A table of your own: tab-separated, gzipped or not, with the columns split (train, dev, test), label and text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or not UTF-8; a row without its three columns, label or words, none of whose
            first `length` words the vocabulary knows, or of an unknown split, named with its line; a label of dev or
            test that training lacks; one class alone; a split without rows.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path} is no file; give path, of a table that exists")
    return _dataset(file.stem, str(path), file.read_bytes(), length, source)


def _shipped(name: str, file: str, length: int, source: str) -> TextDataset:
    stored = files("smoothness.data").joinpath("files", file).read_bytes()
    return _dataset(name, file, stored, length, source, strict=False)


def _dataset(name: str, file: str, stored: bytes, length: int, source: str, strict: bool = True) -> TextDataset:
    check_count("length", length)
    vocabulary = glove()
    rows = _rows(file, stored, vocabulary, length) if strict else _rows(file, stored)
    classes = tuple(sorted({label for split, label, _ in rows if split == "train"}))
    numbers = {label: number for number, label in enumerate(classes)}
    splits = {}
    for split in SPLITS:
        own = [(label, text) for where, label, text in rows if where == split]
        if not own:
            raise ValueError(f"{file}: no row of split {split!r}; expected rows of {', '.join(SPLITS)}")
        strange = sorted({label for label, _ in own} - set(classes))
        if strange:
            raise ValueError(f"{file}: label {strange[0]!r} of split {split!r} has no row in train; add some")
        texts = tuple(text for _, text in own)
        labels = torch.tensor([numbers[label] for label, _ in own])
        sentences = [tokenize(text) or [UNKNOWN] for text in texts]
        splits[split] = Split(vocabulary.encode(sentences, length, strict=False), labels, texts)
    if len(classes) < 2:
        raise ValueError(f"{file}: there is one class, {classes[0]!r}; at least two are needed")
    return TextDataset(
        name,
        splits["train"],
        splits["dev"],
        splits["test"],
        classes,
        None,
        source,
        vocabulary=vocabulary,
        length=length,
    )


def _rows(
    file: str, stored: bytes, vocabulary: Vocabulary | None = None, length: int = 0
) -> list[tuple[str, str, str]]:
    """Split, label and text of every row; with a vocabulary, each needs one of its words among the first `length`."""
    found = []
    lines = io.StringIO(_text(file, stored), newline="\n")
    for number, line in enumerate(lines, start=1):
        columns = line.rstrip("\r\n").split("\t")
        if number == 1:
            if columns != ["split", "label", "text"]:
                raise ValueError(f"{file}, line 1: expected the columns split, label, text; got {columns[:5]}")
            continue
        where = f"{file}, line {number}"
        if len(columns) != 3:
            raise ValueError(f"{where}: expected split, label and text with tabs between, got {len(columns)} columns")
        split, label, text = columns
        if split not in SPLITS:
            raise ValueError(f"{where}: expected split train, dev or test, got {split!r}; correct it")
        if not label.strip():
            raise ValueError(f"{where}: the label is missing; add it, or drop the row")
        if vocabulary is not None:
            tokens = tokenize(text)
            if not tokens:
                raise ValueError(f"{where}: the text {text[:40]!r} holds no word; drop the row")
            if not any(token in vocabulary.places for token in tokens[:length]):
                raise ValueError(
                    f"{where}: none of the first {length} words is known ({text[:40]!r}); expected one of the "
                    f"vocabulary's {len(vocabulary.words)}, drop the row"
                )
        found.append((split, label, text))
    return found


def _text(file: str, stored: bytes) -> str:
    """What a file holds, unpacked and decoded."""
    try:
        plain = gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} is damaged or cut short ({error}); get it anew") from None
    try:
        return plain.decode("utf-8")
    except UnicodeDecodeError as error:
        line = plain.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file}, line {line}: expected UTF-8 ({error.reason}); save the table as UTF-8") from None
