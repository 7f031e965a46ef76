import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from longvit.config import PixelInput
from longvit.tokens import stain
from longvit.tokens.source import patchify, token_source
from longvit.tokens.stain import StainMap, change_stain, find_stains, macenko, normalised, reinhard, sampled, stain_map
from preprocessing.store.store import open_store

STAINS = np.array([[0.65, 0.12], [0.70, 0.95], [0.29, 0.28]])
"""Haematoxylin and eosin of a laboratory."""
OTHER = np.array([[0.80, 0.20], [0.52, 0.85], [0.30, 0.49]])
"""Of another laboratory."""


def tissue(n: int = 4000, stains: np.ndarray = STAINS, amounts: tuple[float, float] = (1.6, 1.1)) -> np.ndarray:
    """Pixels (n, 3) of tissue: mixtures of two stains that fill a square evenly, by two irrational steps."""
    i = np.arange(n)
    mixed = np.stack([0.15 + amounts[0] * (i * 0.6180339887 % 1), 0.15 + amounts[1] * (i * 0.4142135624 % 1)])
    return (240 * np.exp(-stains @ mixed)).round().astype(np.uint8).T


def image(pixels: np.ndarray) -> np.ndarray:
    """One image of a row of pixels."""
    return pixels[None, None]


def test_stains_and_amounts_are_those_of_torchstain():
    """torchstain 1.4.1, MIT: NumpyMacenkoNormalizer's stains (HE) and 99th percentiles (maxC) of the same pixels."""
    stains, most = find_stains(tissue())
    expected = GOLDEN_STAINS
    np.testing.assert_allclose(stains, expected, atol=1e-6)
    np.testing.assert_allclose(most, GOLDEN_MOST, atol=1e-6)


EVERY = slice(0, 4000, 500)


def test_pixels_of_macenko_are_those_of_torchstain():
    """torchstain 1.4.1, MIT: `NumpyMacenkoNormalizer().normalize` of the same pixels, which truncates."""
    changed = macenko(tissue()).apply(image(tissue()))[0, 0, EVERY]
    np.testing.assert_allclose(changed.astype(int), GOLDEN_MACENKO, atol=1)


def test_pixels_of_reinhard_are_those_of_histomicstk():
    """HistomicsTK 1.4, Apache 2.0: the formulas of `reinhard` (`rgb_to_lab`, `lab_to_rgb`), which truncate."""
    changed = reinhard(tissue()).apply(image(tissue()))[0, 0, EVERY]
    np.testing.assert_allclose(changed.astype(int), GOLDEN_REINHARD, atol=2)
