"""The standard panel: every analyzer and attack on anybody's model, in one call."""

from smoothness.panel.analyze import analyze
from smoothness.panel.result import Panel
from smoothness.panel.uses import ActivationUse

__all__ = ["ActivationUse", "Panel", "analyze"]
