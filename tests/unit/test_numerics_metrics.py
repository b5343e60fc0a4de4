"""Metrics of network outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quantgui.numerics.metrics import (
    accuracy,
    agreement,
    cosine,
    energies,
    kl,
    looks_like_probabilities,
    sqnr_db,
)


def outputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((6, 5, 10)).astype(np.float32)
    return reference, reference + rng.standard_normal(reference.shape).astype(np.float32) * 0.1


def test_that_sqnr_is_the_ratio_of_energies_in_decibels():
    reference, output = outputs()
    signal, noise = energies(reference, output)
    assert sqnr_db(reference, output) == pytest.approx(10 * math.log10(signal.sum() / noise.sum()))


@pytest.mark.parametrize("shape", [(3, 7), (2, 40_000), (300, 1000), (4, 0)])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e25])
def test_that_energies_are_exact_at_every_size(shape: tuple[int, ...], size: float):
    rng = np.random.default_rng(1)
    reference = (rng.standard_normal(shape) * size).astype(np.float32)
    output = (reference + rng.standard_normal(shape) * size * 1e-3).astype(np.float32)
    signal, noise = energies(reference, output)
    exact = reference.astype(np.float64)
    assert signal == pytest.approx((exact**2).sum(1), rel=1e-5)
    assert noise == pytest.approx(((exact - output) ** 2).sum(1), rel=1e-5)


def test_that_energies_take_other_types_and_tell_of_what_is_not_finite():
    codes = np.arange(12, dtype=np.int64).reshape(2, 6)
    assert energies(codes, codes + 2)[1].tolist() == [24.0, 24.0]
    assert energies(codes % 2 == 0, codes % 3 == 0)[1].tolist() == [3.0, 3.0]
    broken = np.array([[1.0, 2.0], [math.nan, 0.0], [math.inf, 1.0]], np.float32)
    signal, noise = energies(np.ones((3, 2), np.float32), broken)
    assert signal.tolist() == [2.0, 2.0, 2.0]
    assert np.isfinite(noise).tolist() == [True, False, False]


def test_that_equal_outputs_are_perfect_and_zeros_are_no_trouble():
    zero, one = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert sqnr_db(one, one) == math.inf
    assert sqnr_db(zero, one) == -math.inf
    assert cosine(zero, zero).tolist() == [1.0, 1.0]
    assert cosine(zero, one).tolist() == [0.0, 0.0]


def test_that_cosine_is_torchs():
    reference, output = (torch.from_numpy(x).reshape(6, -1).double() for x in outputs())
    expected = torch.nn.functional.cosine_similarity(reference, output)
    assert cosine(*outputs()) == pytest.approx(expected.numpy(), abs=1e-9)


def test_that_kl_is_torchs_for_logits_and_for_probabilities():
    reference, output = (torch.from_numpy(x).double() for x in outputs())
    expected = (
        torch.nn.functional.kl_div(output.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True)
        .sum(-1)
        .mean(-1)
    )
    assert kl(*outputs()) == pytest.approx(expected.numpy(), rel=1e-6)
    assert kl(reference.softmax(-1).numpy(), output.softmax(-1).numpy()) == pytest.approx(expected.numpy(), rel=1e-4)


def test_that_agreement_and_accuracy_average_over_positions():
    reference, output = outputs()
    same = reference.argmax(-1) == output.argmax(-1)
    assert agreement(reference, output) == pytest.approx(same.mean(axis=1))
    labels = reference.argmax(-1)
    labels[0, 0] = (labels[0, 0] + 1) % 10
    assert accuracy(reference, labels).tolist() == [0.8, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_that_class_scores_and_probabilities_are_recognised():
    logits = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    assert not looks_like_probabilities(logits)
    assert looks_like_probabilities(np.full((4, 10), 0.1, np.float32))
