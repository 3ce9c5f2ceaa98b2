"""Attacks: lower bounds on vulnerability, each a frozen dataclass called with a model, inputs and labels."""

from smoothness.attacks.apgd import APGD
from smoothness.attacks.cascade import Cascade
from smoothness.attacks.cascade_result import CascadeResult
from smoothness.attacks.continuation import Continuation
from smoothness.attacks.ddn import DDN
from smoothness.attacks.decision_boundary import DecisionBoundary
from smoothness.attacks.deepfool import DeepFool
from smoothness.attacks.evolution import EvolutionGradient
from smoothness.attacks.fgsm import FGSM
from smoothness.attacks.fmn import FMN
from smoothness.attacks.good_words import GoodWordInsertion, good_words
from smoothness.attacks.losses import margin_loss
from smoothness.attacks.noise import Noise
from smoothness.attacks.pgd import PGD
from smoothness.attacks.result import Attack, AttackResult, Passes
from smoothness.attacks.square import Square
from smoothness.attacks.transfer import Transfer
from smoothness.attacks.word_result import WordResult
from smoothness.attacks.word_substitution import WordSubstitution

__all__ = [
    "APGD",
    "DDN",
    "FGSM",
    "FMN",
    "PGD",
    "Attack",
    "AttackResult",
    "Cascade",
    "CascadeResult",
    "Continuation",
    "DecisionBoundary",
    "DeepFool",
    "EvolutionGradient",
    "GoodWordInsertion",
    "Noise",
    "Passes",
    "Square",
    "Transfer",
    "WordResult",
    "WordSubstitution",
    "good_words",
    "margin_loss",
]
