"""Signal to noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeq.numerics.errors import sqnr_db


def test_a_tenth_of_noise_is_twenty_db() -> None:
    reference = np.array([1.0, -2.0, 3.0])
    assert sqnr_db(reference, reference * 1.1) == pytest.approx(20.0, abs=1e-9)


def test_equal_arrays_and_empty_ones_have_no_noise() -> None:
    assert sqnr_db(np.ones(3), np.ones(3)) == math.inf
    assert sqnr_db(np.ones(0), np.ones(0)) == math.inf


def test_a_missed_zero_is_minus_infinity() -> None:
    assert sqnr_db(np.zeros(2), np.array([0.0, 1e-9])) == -math.inf


def test_sums_are_taken_in_float64() -> None:
    reference = np.full(10, 1e30, np.float32)  # its square leaves float32
    assert sqnr_db(reference, reference * np.float32(0.5)) == pytest.approx(6.0206, abs=1e-3)


def test_uniform_noise_of_a_step_matches_theory() -> None:
    """Quantizing to step s leaves noise s^2 / 12: 10.79 dB above the step's own power."""
    values = np.random.default_rng(0).uniform(-1, 1, 200_000)
    step = 2 / 255
    noise = np.rint(values / step) * step
    expected = 10 * math.log10((1 / 3) / (step**2 / 12))
    # the mean of n squared errors has relative deviation 0.9 / sqrt(n): 0.01 dB here
    assert sqnr_db(values, noise) == pytest.approx(expected, abs=0.05)
