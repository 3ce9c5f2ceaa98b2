"""Attacks on words: against enumeration on a tiny vocabulary, and what their results promise."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.attacks import GoodWordInsertion, WordSubstitution, good_words
from smoothness.vocabulary import Vocabulary, is_word, tokenize

NAMES = tuple("abcdefgh")


def vocabulary(seed):
    return Vocabulary(NAMES, torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)))


class Scorer(nn.Module):
    """A small random network of the words in their order."""

    def __init__(self, seed, length=4, classes=3):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(length * 3, 16, generator=g))
        self.second = nn.Parameter(torch.randn(16, classes, generator=g))
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return torch.tanh((x * is_word(x).unsqueeze(2)).flatten(1) @ self.first) @ self.second


def margins(model, words, sentences, label):
    logits = model(words.encode(sentences, 4))
    others = logits.clone()
    others[:, label] = -torch.inf
    return others.amax(dim=1) - logits[:, label]


def everything(attack, tokens):
    """All sentences within reach: at most max_words exchanged for candidates."""
    choices = [[token, *attack.near(token)] for token in tokens]
    for sentence in itertools.product(*choices):
        changed = sum(a != b for a, b in zip(sentence, tokens, strict=True))
        if changed <= attack.max_words:
            yield list(sentence), changed


@pytest.mark.parametrize("max_words", [1, 2, 3])
def test_substitution_against_enumeration(max_words):
    fooled = reachable = greedy_fooled = 0
    for seed in range(40):
        words, model = vocabulary(seed), Scorer(seed)
        wide = WordSubstitution(words, 4, cosine=0.2, neighbours=3, max_words=max_words, beam=10_000, queries=100_000)
        texts = [" ".join(NAMES[(seed + k) % 8] for k in range(3)), "b g d a"]
        labels = model(words.encode(texts, 4)).argmax(dim=1)
        found = wide(model, texts, labels)
        greedy = replace(wide, beam=1)(model, texts, labels)
        for row, text in enumerate(texts):
            tokens = text.split()
            reach = list(everything(wide, tokens))
            best = margins(model, words, [sentence for sentence, _ in reach], int(labels[row])).max()
            assert bool(found.success[row]) == bool(best > 0)  # a beam that drops nothing misses nothing
            assert not greedy.success[row] or best > 0
            after = found.texts[row].split()
            assert (after, int(found.words_changed[row])) in reach
            fooled += bool(found.success[row])
            greedy_fooled += bool(greedy.success[row])
            reachable += 1
    assert 0 < greedy_fooled <= fooled < reachable


def test_greedy_step_by_hand():
    words, model = vocabulary(1), Scorer(5)
    tokens = ["a", "e", "h"]
    label = int(model(words.encode([tokens], 4)).argmax())
    attack = WordSubstitution(words, 4, candidates=lambda word: [w for w in "bcd" if w != word], max_words=1)
    found = attack(model, [tokens], torch.tensor([label]))
    model.requires_grad_(False)
    deleted = margins(model, words, [tokens[:k] + tokens[k + 1 :] for k in range(3)], label)
    current, score = tokens, float(margins(model, words, [tokens], label))
    for place in deleted.argsort(descending=True).tolist():
        trials = [[*tokens[:place], other, *tokens[place + 1 :]] for other in "bcd"]
        losses = margins(model, words, trials, label)
        if losses.max() > score:
            current = trials[int(losses.argmax())]
            break
    assert found.texts == (" ".join(current),)


def test_success_is_real_and_costs_are_counted():
    words, model = vocabulary(2), Scorer(2)
    texts = [" ".join(sentence) for sentence in itertools.permutations("abcd", 3)]
    labels = model(words.encode(texts, 4)).argmax(dim=1)
    labels[:3] = (labels[:3] + 1) % 3
    attack = WordSubstitution(words, 4, cosine=-1.0, neighbours=4, max_words=2, queries=12)
    model.seen = 0
    found = attack(model, texts, labels)
    assert model.seen == int(found.queries.sum())
    assert int(found.queries.max()) <= 12 + 2
    again = model(found.inputs).argmax(dim=1)
    assert torch.equal(found.success, again != labels)
    assert torch.equal(words.encode(found.texts, 4), found.inputs)
    assert found.status[:3] == ("clean_error",) * 3
    assert found.texts[:3] == tuple(texts[:3])
    assert set(found.status) == {"clean_error", "fooled", "survived"}
    for text, edits, changed in zip(texts, found.edits, found.words_changed.tolist(), strict=True):
        assert [before for before, _ in edits] == text.split()
        assert sum(a != b for a, b in edits) == changed <= 2
    by_inputs = attack(model, words.encode(texts, 4), labels)
    assert by_inputs.texts == found.texts
    alone = attack(model, texts[5:6], labels[5:6])
    assert alone.texts[0] == found.texts[5]
    success, exchanged, queries = found.measurements("word_attack", {"kind": "words"})
    assert success.bound == "lower"
    assert success.values.mean() == found.success.double().mean()
    assert torch.equal(exchanged.valid, torch.tensor([s == "fooled" for s in found.status]))
    assert torch.equal(queries.values, found.queries.double())


def test_model_is_left_as_it_was():
    words = vocabulary(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)).train()
    before = torch.random.get_rng_state()
    WordSubstitution(words, 4)(model, ["a b"], torch.tensor([0]))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(before, torch.random.get_rng_state())


def test_failing_outputs():
    class Fails(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 2), torch.nan)

    found = WordSubstitution(vocabulary(0), 4)(Fails(), ["a b"], torch.tensor([0]))
    assert found.status == ("model_failure",)
    assert not found.success.any()
    assert not found.measurements("w", {})[0].valid.any()


def test_good_words_are_those_of_the_class():
    texts = ["win cash now", "see the list", "win a prize", "the meeting of the list", "cash prize"]
    labels = torch.tensor([1, 0, 1, 0, 1])
    assert set(good_words(texts, labels, good=0, count=2)) == {"the", "list"}
    assert set(good_words(texts, labels, good=1, count=3)) == {"win", "cash", "prize"}
    with pytest.raises(ValueError, match="no text of class 0 holds a word; give texts with words"):
        good_words(["", "win cash"], torch.tensor([0, 1]), good=0)
    with pytest.raises(ValueError, match="class 2 needs texts of its own and of others; got 0 and 5"):
        good_words(texts, labels, good=2)


def test_insertion_against_enumeration():
    for seed in range(25):
        words, model = vocabulary(seed), Scorer(seed, classes=2)
        texts = ["e f", "g h f", "f f g e"]
        labels = model(words.encode(texts, 4)).argmax(dim=1)
        attack = GoodWordInsertion(words, 4, ("a", "b", "c"), good=0, max_words=1)
        found = attack(model, texts, labels)
        for row, text in enumerate(texts):
            if labels[row] == 0:
                assert found.status[row] == "left_out"
                assert found.texts[row] == text
                continue
            longer = [[word, *text.split()][:4] for word in "abc"]
            losses = margins(model, words, longer, 1)
            assert bool(found.success[row]) == bool(losses.max() > 0)
            if found.success[row]:
                assert found.texts[row].split() == longer[int(losses.argmax())]
                assert found.edits[row][0][0] == ""
                assert found.words_changed[row] == 1


def test_insertion_pushes_words_out_and_says_so():
    class Counts(nn.Module):  # spam unless two of the word are there
        def forward(self, x):
            share = (x[:, :, 0] * is_word(x)).sum(dim=1)
            return torch.stack([share, torch.full_like(share, 1.5)], dim=1)

    words = Vocabulary(("ham", "eggs", "cash"), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    attack = GoodWordInsertion(words, 3, ("ham", "eggs"), max_words=5)
    found = attack(Counts(), ["cash cash cash"], torch.tensor([1]))
    assert found.status == ("fooled",)
    assert found.texts == ("eggs ham cash",)
    assert found.edits[0] == (("", "eggs"), ("", "ham"), ("cash", "cash"), ("cash", ""), ("cash", ""))
    assert found.words_changed.tolist() == [2]
    assert found.queries.tolist() == [1 + 2 + 1 + 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: WordSubstitution(w, 4, cosine=1.5), "cosine must lie between -1 and 1, got 1.5"),
        (lambda w: WordSubstitution(w, 4, beam=0), "beam must be a whole number of at least 1, got 0"),
        (lambda w: GoodWordInsertion(w, 4, ()), "words must be some of the vocabulary's, got none"),
        (lambda w: GoodWordInsertion(w, 4, ("zz",)), r"words must be some of the vocabulary's, got \['zz'\]"),
        (lambda w: WordSubstitution(w, 4)(Scorer(0), [], torch.zeros(0).long()), "there are no sentences"),
        (lambda w: WordSubstitution(w, 4)(Scorer(0), ["a", ""], torch.tensor([0, 0])), "row 1: the sentence is empty"),
        (lambda w: WordSubstitution(w, 4)(Scorer(0), ["zz"], torch.tensor([0])), "row 0: none of the words is known"),
        (lambda w: WordSubstitution(w, 4)(Scorer(0), ["a"], torch.tensor([3])), "must be below the model's 3 classes"),
    ],
)
def test_what_cannot_be_attacked(make, message):
    with pytest.raises(ValueError, match=message):
        make(vocabulary(0))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a b", r"texts must be a list, got the one text 'a b'; write \[text\]"),
        (["a", None], "row 1: expected a text or a list of tokens, got NoneType; drop the row"),
    ],
)
def test_what_is_no_list_of_sentences(texts, message):
    attack = WordSubstitution(vocabulary(0), 4)
    with pytest.raises(TypeError, match=message):
        attack(Scorer(0), texts, torch.tensor([0, 0]))


@pytest.mark.slow
def test_spam_filter_is_passed_by_words_of_ham():
    data = sm.load_dataset("spam", length=60)
    model = sm.build_model("text_cnn", input_shape=data.input_shape, classes=2, width=32)
    sm.train(model, data, sm.Recipe(epochs=3, learning_rates=(0.003,)))
    words = [w for w in good_words(data.train.texts, data.train.labels, 0, 60) if w in data.vocabulary.places]
    attack = GoodWordInsertion(data.vocabulary, data.length, tuple(words[:20]), good=0, max_words=10)
    spam = (data.test.labels == 1).nonzero().flatten()[:30].tolist()
    texts = [data.test.texts[k] for k in spam]
    found = attack(model, texts, data.test.labels[spam])
    fooled = [k for k, status in enumerate(found.status) if status == "fooled"]
    assert fooled
    for k in fooled:
        after = found.texts[k].split()
        assert len(after) <= 60
        assert after[found.words_changed[k] :] == tokenize(texts[k])[: len(after) - found.words_changed[k]]
