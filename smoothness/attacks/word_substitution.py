"""Words exchanged for near ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from smoothness._checks import check_count
from smoothness.attacks.word_result import Edit, Questions, Texts, WordResult, attack_sentences
from smoothness.vocabulary import Vocabulary

State = tuple[float, tuple[str, ...], int]  # loss, tokens, words changed


@dataclass(frozen=True)
class WordSubstitution:
    """Exchange words for near ones until the model errs (after Jin et al. 2020, arXiv 1907.11932, TextFooler).

    Words are ranked by how much the margin loss max_{j != y} f_j - f_y grows when they are deleted; in that order
    each is exchanged for the candidate that raises it most, or left when none does. With `beam` b, the b best
    partly changed sentences are kept instead of one. Scores alone are used, no gradient. That the meaning stays is
    not checked: near vectors are often, not always, near in meaning.

    Args:
        vocabulary: of the model's embeddings.
        length: tokens that the model reads.
        candidates: word -> words to try; the nearest by cosine when None.
        cosine: lowest cosine of those nearest words; not used with candidates of your own.
        neighbours: how many of the nearest words are tried.
        max_words: exchanged at most.
        beam: sentences kept; 1 is greedy.
        queries: sentences sent through the model at most, per sentence, beside the first look and the last check.

    Raises:
        ValueError: settings out of range; empty sentences, or without a known word.

    >>> import torch
    >>> words = Vocabulary(("bad", "poor", "film"), torch.tensor([[2.0, 0.1], [1.0, 0.9], [0.0, -1.0]]))
    >>> class Sum(nn.Module):  # class 1 where the first coordinates outweigh the second ones
    ...     def forward(self, x):
    ...         total = (x * (x > -4)).sum(dim=1)
    ...         return torch.stack([total[:, 1] + 1.5, total[:, 0]], dim=1)
    >>> found = WordSubstitution(words, length=4)(Sum(), ["Bad film"], torch.tensor([1]))
    >>> found.texts, found.words_changed.tolist(), found.status
    (('poor film',), [1], ('fooled',))
    """

    vocabulary: Vocabulary
    length: int
    candidates: Callable[[str], Sequence[str]] | None = None
    cosine: float = 0.7
    neighbours: int = 8
    max_words: int = 3
    beam: int = 1
    queries: int = 1000

    def __post_init__(self) -> None:
        for name in ("length", "neighbours", "max_words", "beam", "queries"):
            check_count(name, getattr(self, name))
        if not -1 <= self.cosine <= 1:
            raise ValueError(f"cosine must lie between -1 and 1, got {self.cosine!r}")

    @property
    def label(self) -> str:
        """Readable name, such as "words-beam4"."""
        return "words" if self.beam == 1 else f"words-beam{self.beam}"

    def __call__(self, model: nn.Module, texts: Texts, y: Tensor) -> WordResult:
        """Attack sentences, lists of tokens or clean inputs, with labels y: (n,)."""
        return attack_sentences(model, self.vocabulary, self.length, texts, y, self.queries, self._change, good=-1)

    def near(self, word: str) -> list[str]:
        """What a word may be exchanged for."""
        if self.candidates is not None:
            return [other for other in self.candidates(word) if other != word]
        return self.vocabulary.neighbours(word, self.neighbours, self.cosine) if word.isalpha() else []

    def _change(self, questions: Questions, tokens: list[str]) -> Sequence[Edit]:
        start: State = (questions([tokens])[0], tuple(tokens), 0)
        kept = best = [start]
        for place in _ranking(questions, tokens):
            trials = [
                ((*words[:place], other, *words[place + 1 :]), changed + 1)
                for _, words, changed in kept
                if changed < self.max_words
                for other in self.near(words[place])
            ]
            losses = questions([list(words) for words, _ in trials])
            found = [(loss, words, changed) for loss, (words, changed) in zip(losses, trials, strict=False)]
            kept = sorted([*kept, *found], key=lambda state: (-state[0], state[2]))[: self.beam]
            best = sorted([*best, *kept], key=lambda state: (state[0] <= 0, -state[0]))[:1]
            if best[0][0] > 0 or questions.left == 0:
                break
        return list(zip(tokens, best[0][1], strict=True))


def _ranking(questions: Questions, tokens: list[str]) -> Iterator[int]:
    """Places of the words, the most important first; as they stand where a sentence has one word."""
    shorter = [tokens[:place] + tokens[place + 1 :] for place in range(len(tokens))]
    losses = questions(shorter) if len(tokens) > 1 else []
    losses += [float("-inf")] * (len(tokens) - len(losses))
    yield from sorted(range(len(tokens)), key=lambda place: -losses[place])
