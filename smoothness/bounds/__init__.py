"""Certified bounds: ranges of every unit over a ball, and Lipschitz constants from above."""
