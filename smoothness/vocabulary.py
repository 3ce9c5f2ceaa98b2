"""Words as vectors: the tokenizer, the vocabulary, sentences as tensors and back."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from smoothness._checks import check_count
from smoothness._norms import Norm

UNKNOWN = "<unknown>"
PADDING = -8.0  # every coordinate of a padding row; a word's lie within 1.5
EDGE = PADDING / 2  # rows of lower mean are padding
NEIGHBOUR = 2.9487338  # mean l2 distance from a word of the GloVe slice to its nearest other one; a test computes it
_TOKEN = re.compile(r"[a-z]+|[0-9]+|[!?$%]")
_CHUNK = 2000


def tokenize(text: str) -> list[str]:
    """Lower-case words, whole numbers and the signs ! ? $ %; everything else separates.

    >>> tokenize("Don't pay $50!")
    ['don', 't', 'pay', '$', '50', '!']
    """
    return _TOKEN.findall(text.lower())


def words_of(sentence: object, row: int) -> list[str]:
    """Tokens of a text, or of a list of them as it stands; `row` is for the error.

    >>> words_of(None, 3)
    Traceback (most recent call last):
        ...
    TypeError: row 3: expected a text or a list of tokens, got NoneType; drop the row
    """
    if isinstance(sentence, str):
        return tokenize(sentence)
    if not isinstance(sentence, Sequence) or not all(isinstance(token, str) for token in sentence):
        raise TypeError(f"row {row}: expected a text or a list of tokens, got {type(sentence).__name__}; drop the row")
    return list(sentence)


def is_word(inputs: Tensor) -> Tensor:
    """Which rows hold a word, not padding: (n, length, d) -> (n, length), 1 or 0 in the inputs' type.

    A row is padding when its mean is below -4. Padding rows are -8 everywhere, so the answer is the same at every
    point of an linf ball of radius below 4, and of an l2 ball of radius below 4·√d: attacks do not change it.
    """
    return (inputs.mean(dim=2) > EDGE).to(inputs.dtype)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words and their vectors (words, d), float32. Unknown words share the mean of all the vectors."""

    words: tuple[str, ...]
    vectors: Tensor

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.words) != len(self.vectors) or not len(self.words):
            raise ValueError(
                f"{len(self.words)} words need as many vectors in a matrix, got shape {tuple(self.vectors.shape)}"
            )
        if len(self.places) < len(self.words):
            raise ValueError("words must differ; drop the repeated ones")
        if float(self.vectors.mean(dim=1).min()) < EDGE / 2:
            raise ValueError(f"a vector's mean lies near the padding's, {PADDING:g}; scale the vectors down")

    @cached_property
    def places(self) -> dict[str, int]:
        """Word -> its row."""
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def unknown(self) -> Tensor:
        """Vector of every word that is not in the vocabulary."""
        return self.vectors.mean(dim=0)

    @cached_property
    def _rows(self) -> dict[bytes, str]:
        known = {row.tobytes(): word for word, row in zip(self.words, self.vectors.numpy(), strict=True)}
        return {**known, self.unknown.numpy().tobytes(): UNKNOWN}

    def encode(self, sentences: Sequence[Sequence[str] | str], length: int, *, strict: bool = True) -> Tensor:
        """Vectors of the first `length` tokens of each sentence, padding after them: (n, length, d).

        Args:
            sentences: texts, or lists of tokens.
            length: rows of each input.
            strict: refuse sentences of which no word is known.

        Raises:
            ValueError: a sentence without a token or, if strict, without a known one; named by its row.
            TypeError: a sentence that is neither text nor tokens, named by its row; one text instead of several.

        >>> words = Vocabulary(("good", "bad"), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> words.encode(["Bad!"], length=3).tolist()
        [[[-1.0, 0.0], [0.0, 0.0], [-8.0, -8.0]]]
        """
        check_count("length", length)
        if isinstance(sentences, str):
            raise TypeError(f"sentences must be a list, got the one text {sentences[:40]!r}; write [text]")
        rows = torch.full((len(sentences), length), len(self.words) + 1)
        for place, sentence in enumerate(sentences):
            tokens = words_of(sentence, place)[:length]
            found = [self.places.get(token, len(self.words)) for token in tokens]
            if not found:
                raise ValueError(f"row {place}: the sentence is empty; expected at least one word, drop the row")
            if strict and min(found) == len(self.words):
                raise ValueError(
                    f"row {place}: none of the words is known ({' '.join(tokens)[:60]!r}); expected at least one of "
                    f"the vocabulary's {len(self.words)}, drop the row or pass strict=False"
                )
            rows[place, : len(found)] = torch.tensor(found)
        padding = torch.full_like(self.unknown, PADDING)
        return torch.cat([self.vectors, self.unknown[None], padding[None]])[rows]

    def decode(self, inputs: Tensor) -> list[list[str]]:
        """Tokens behind inputs of `encode`; "<unknown>" for what was not in the vocabulary.

        Raises:
            ValueError: a row that is neither a word's vector nor padding, such as a perturbed one; inputs of
                another shape.

        >>> words = Vocabulary(("good", "bad"), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> words.decode(words.encode(["bad bad film"], length=4))
        [['bad', 'bad', '<unknown>']]
        """
        if inputs.ndim != 3 or inputs.shape[2] != self.vectors.shape[1]:
            raise ValueError(
                f"expected inputs (n, length, {self.vectors.shape[1]}) of encode, got shape {tuple(inputs.shape)}"
            )
        present, found = is_word(inputs).bool(), []
        for place, (rows, kept) in enumerate(zip(inputs.detach().cpu(), present.cpu(), strict=True)):
            tokens = [self._rows.get(row.tobytes()) for row in rows[kept].float().numpy()]
            if None in tokens:
                raise ValueError(
                    f"row {place}: position {tokens.index(None)} holds no word's vector; pass clean inputs of encode"
                )
            found.append([str(token) for token in tokens])
        return found

    def neighbours(self, word: str, count: int, cosine: float) -> list[str]:
        """The nearest other words by cosine, at most `count`, none below `cosine`, no number or sign.

        >>> words = Vocabulary(("a", "b", "c"), torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
        >>> words.neighbours("a", 2, cosine=0.5)
        ['b']
        """
        if word not in self.places:
            return []
        own = self.places[word]
        cosines = self._directions @ self._directions[own]
        cosines[own] = -torch.inf
        cosines[~self._spelt] = -torch.inf
        best = cosines.topk(min(count, len(self.words)))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [self.words[k] for k, c in found if c >= max(cosine, -1.0)]

    @cached_property
    def _spelt(self) -> Tensor:
        return torch.tensor([re.fullmatch("[a-z]+", word) is not None for word in self.words])

    @cached_property
    def _directions(self) -> Tensor:
        return torch.nn.functional.normalize(self.vectors, dim=1)

    def neighbour_distance(self, norm: Norm = "l2") -> float:
        """Mean distance from a word to its nearest other word: the unit for balls around embeddings.

        >>> words = Vocabulary(("a", "b", "c"), torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]))
        >>> round(words.neighbour_distance(), 4)  # (1 + 1 + 2) / 3
        1.3333
        """
        order = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[norm]
        total = 0.0
        for rows in torch.split(torch.arange(len(self.words)), _CHUNK):
            distances = torch.cdist(self.vectors[rows], self.vectors, p=order)
            distances[torch.arange(len(rows)), rows] = torch.inf
            total += float(distances.amin(dim=1).double().sum())
        return total / len(self.words)


@cache
def glove() -> Vocabulary:
    """13,434 words of GloVe 6B (Pennington et al. 2014) in 50 dimensions, in units of their own distances.

    The vectors are divided by the mean l2 distance from a word to its nearest other word, 2.949: a ball of radius 1
    reaches as far as the typical next word.

    >>> glove().vectors.shape
    torch.Size([13434, 50])
    """
    stored = files("smoothness.data").joinpath("files", "glove_6b_50d_slice.npz").read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        words = tuple(str(word) for word in arrays["words"])
        vectors = torch.from_numpy(arrays["vectors"].astype(np.float32))
    return Vocabulary(words, vectors / NEIGHBOUR)
