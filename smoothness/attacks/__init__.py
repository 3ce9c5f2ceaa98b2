"""Attacks: lower bounds on vulnerability, each a frozen dataclass called with a model, inputs and labels."""

from smoothness.attacks.fgsm import FGSM
from smoothness.attacks.losses import margin_loss
from smoothness.attacks.noise import Noise
from smoothness.attacks.pgd import PGD
from smoothness.attacks.result import Attack, AttackResult, Passes

__all__ = ["FGSM", "PGD", "Attack", "AttackResult", "Noise", "Passes", "margin_loss"]
