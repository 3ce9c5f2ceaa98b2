"""Words of another class put into a message: the classic way past a spam filter."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness.attacks.word_result import Edit, Questions, Texts, WordResult, attack_sentences
from smoothness.vocabulary import Vocabulary, tokenize


def good_words(texts: Sequence[str], labels: Tensor, good: int, count: int = 50) -> tuple[str, ...]:
    """The words that speak most for a class in training data: highest log odds of standing in a text of it.

    log (a + 1/2) / (A - a + 1/2) - log (b + 1/2) / (B - b + 1/2), with a of the A texts of the class, and b of the
    B others, holding the word.

    >>> import torch
    >>> good_words(["see the list", "win cash", "the meeting"], torch.tensor([0, 1, 0]), good=0, count=1)
    ('the',)
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts but {len(labels)} labels")
    inside, outside = Counter[str](), Counter[str]()
    numbers = labels.tolist()
    for text, label in zip(texts, numbers, strict=True):
        (inside if label == good else outside).update({token for token in tokenize(text) if token.isalpha()})
    a = numbers.count(good)
    b = len(numbers) - a
    if not a or not b:
        raise ValueError(f"class {good} needs texts of its own and of others; got {a} and {b}")

    if not inside:
        raise ValueError(f"no text of class {good} holds a word; give texts with words")

    def odds(word: str) -> float:
        mine, theirs = inside[word], outside[word]
        return math.log((mine + 0.5) / (a - mine + 0.5)) - math.log((theirs + 0.5) / (b - theirs + 0.5))

    return tuple(sorted(inside, key=lambda word: (-odds(word), word))[:count])


@dataclass(frozen=True)
class GoodWordInsertion:
    """Put words of the good class before a message until the model errs (Lowd and Meek 2005, CEAS).

    Greedy: of the words not used yet, the one whose insertion in front raises the margin loss most, again and again.
    What no longer fits into `length` is pushed out at the end. Messages of the good class are left alone
    ("left_out"). Scores alone are used.

    Args:
        vocabulary: of the model's embeddings.
        length: tokens that the model reads.
        words: to insert, such as `good_words` of the training split.
        good: label of the class they speak for.
        max_words: inserted at most.
        queries: messages sent through the model at most, per message, beside the first look and the last check.

    Raises:
        ValueError: settings out of range, no words, or words that the vocabulary lacks.
    """

    vocabulary: Vocabulary
    length: int
    words: tuple[str, ...]
    good: int = 0
    max_words: int = 10
    queries: int = 1000

    def __post_init__(self) -> None:
        for name in ("length", "max_words", "queries"):
            check_count(name, getattr(self, name))
        check_count("good", self.good, 0)
        strange = [word for word in self.words if word not in self.vocabulary.places]
        if strange or not self.words:
            raise ValueError(
                f"words must be some of the vocabulary's, got {strange[:5] or 'none'}; leave out what it lacks"
            )

    @property
    def label(self) -> str:
        """Readable name."""
        return "good-words"

    def __call__(self, model: nn.Module, texts: Texts, y: Tensor) -> WordResult:
        """Attack sentences, lists of tokens or clean inputs, with labels y: (n,)."""
        return attack_sentences(
            model, self.vocabulary, self.length, texts, y, self.queries, self._change, good=self.good
        )

    def _change(self, questions: Questions, tokens: list[str]) -> Sequence[Edit]:
        best = questions([tokens])[0]
        front: list[str] = []
        current: list[str] = []
        while best <= 0 and len(current) < self.max_words and questions.left:
            trials = [[word, *current] for word in self.words if word not in current]
            losses = questions([[*trial, *tokens] for trial in trials])
            if not losses:
                break
            place = max(range(len(losses)), key=losses.__getitem__)
            current = trials[place]
            if losses[place] > best:
                best, front = losses[place], current
        stays = self.length - len(front)
        return [("", word) for word in front] + [(t, t if k < stays else "") for k, t in enumerate(tokens)]
