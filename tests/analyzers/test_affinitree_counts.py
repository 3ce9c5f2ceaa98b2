"""Pieces on segments and linear regions of 20 random networks: the numbers that affinitree 0.23 counted."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.roughness_peers import SEEDS, SHAPES, ours

COUNTS = json.loads((Path(__file__).parents[1] / "reference" / "affinitree.json").read_text())


@pytest.mark.parametrize("widths", SHAPES, ids=lambda widths: "-".join(map(str, widths)))
def test_the_same_pieces_and_regions(widths):
    for seed in SEEDS:
        assert ours(widths, seed) == COUNTS["-".join(map(str, widths)) + f"/{seed}"]


def test_all_networks_are_compared():
    assert len(COUNTS) == len(SHAPES) * len(SEEDS) == 20
