"""Certified ranges of an activation over an interval: values, slopes, secants."""

from smoothness.activations.intervals.ranges import secant_range, slope_range, value_range

__all__ = ["secant_range", "slope_range", "value_range"]
