"""Attacks on words in a study: measured beside the attacks in balls, on inputs decoded back to words."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from smoothness._checks import check_choice
from smoothness.attacks import GoodWordInsertion, WordSubstitution, good_words
from smoothness.data import TextDataset, load_dataset
from smoothness.measurement import Measurement
from smoothness.study.analyzer_base import AnalyzerBase
from smoothness.study.fields import Count, Number
from smoothness.vocabulary import glove

SETS = ("banking77", "clinc150", "spam")


class WordSettings(AnalyzerBase):
    """Words exchanged for near ones, of the shipped vocabulary.

    Attributes:
        cosine, neighbours, max_words, beam, queries: as `smoothness.attacks.WordSubstitution` has them.
    """

    kind: Literal["words"]
    cosine: Annotated[Number, Field(ge=-1, le=1)] = 0.7
    neighbours: Count = 8
    max_words: Count = 3
    beam: Count = 1
    queries: Count = 1000

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Success, words exchanged and queries."""
        _check_sentences(x)
        attack = WordSubstitution(
            glove(),
            x.shape[1],
            cosine=float(self.cosine),
            neighbours=self.neighbours,
            max_words=self.max_words,
            beam=self.beam,
            queries=self.queries,
        )
        return attack(model, x, y).measurements("word_attack", self.model_dump(mode="json"))


class GoodWordSettings(AnalyzerBase):
    """Words of a class put before messages of the others, chosen on the training split of a shipped data set.

    Attributes:
        data: the data set.
        good: the class whose words are put in.
        candidates: how many of its words are tried.
        max_words, queries: as `smoothness.attacks.GoodWordInsertion` has them.
    """

    kind: Literal["good-words"]
    data: str = "spam"
    good: str = "ham"
    candidates: Count = 50
    max_words: Count = 10
    queries: Count = 1000

    @model_validator(mode="after")
    def _known(self) -> GoodWordSettings:
        check_choice("data set of sentences", self.data, SETS)
        return self

    def measure(
        self, model: nn.Module, x: Tensor, y: Tensor, seed: int, allowed: tuple[str, ...]
    ) -> Iterable[Measurement]:
        """Success, words put in and queries."""
        _check_sentences(x)
        good, words = _good_words(self.data, self.good, self.candidates)
        attack = GoodWordInsertion(glove(), x.shape[1], words, good, self.max_words, self.queries)
        return attack(model, x, y).measurements("good_words", self.model_dump(mode="json"))


@functools.cache
def _good_words(name: str, good: str, count: int) -> tuple[int, tuple[str, ...]]:
    data = load_dataset(name)
    if not isinstance(data, TextDataset) or data.train.texts is None:
        raise ValueError(f"data set {name!r} holds no sentences; use one of {', '.join(SETS)}")
    label = data.classes.index(check_choice(f"class of {name}", good, data.classes))
    found = good_words(data.train.texts, data.train.labels, label, count=4 * count)
    return label, tuple(word for word in found if word in data.vocabulary.places)[:count]


def _check_sentences(x: Tensor) -> None:
    if x.ndim != 3 or x.shape[2] != glove().vectors.shape[1]:
        raise ValueError(f"attacks on words need embedded sentences (length, 50), got {tuple(x.shape[1:])}")
