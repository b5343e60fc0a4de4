"""Fourier, cosine, constant-Q and mel bases are recognised; learned and smooth weights are not."""

from __future__ import annotations

import numpy as np
import pytest

from quantgui.network.transforms import is_signal_transform


def window(kind, length):
    return {"hann": np.hanning(length + 1)[:-1], "hamming": np.hamming(length), "none": np.ones(length)}[kind]


def fourier(length, kind="hann"):
    phase = 2 * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length
    return (np.concatenate([np.cos(phase), np.sin(phase)]) * window(kind, length)).astype(np.float32)


def cosine(count, length):
    rows = np.arange(count)[:, None] * (np.arange(length) + 0.5) * np.pi / length
    return np.cos(rows).astype(np.float32)


def mel(count, bins, rate=16000):
    def to_hertz(m):
        return 700 * (10 ** (m / 2595) - 1)

    points = to_hertz(np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), count + 2))
    frequencies = np.linspace(0, rate / 2, bins)
    rising = (frequencies - points[:-2, None]) / np.diff(points)[:-1, None]
    falling = (points[2:, None] - frequencies) / np.diff(points)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def constant_q(octaves=5, rate=8000, lowest=55.0):
    q = 1 / (2 ** (1 / 12) - 1)
    rows = []
    for i in range(12 * octaves):
        frequency = lowest * 2 ** (i / 12)
        length = int(q * rate / frequency)
        row = np.zeros(int(q * rate / lowest) + 1, np.float32)
        at = (len(row) - length) // 2
        row[at : at + length] = np.hanning(length) * np.cos(2 * np.pi * frequency / rate * np.arange(length)) / length
        rows.append(row)
    return np.array(rows)


def turns(length):
    return 2 * np.pi * np.outer(np.arange(length), np.arange(length)) / length


TRANSFORMS = {
    "sines alone": (-np.sin(turns(32)).astype(np.float32), 0),
    "sines of a transform of 16": (-np.sin(turns(16)).astype(np.float32), 1),
    "cosines of a transform of 16": (np.cos(turns(16)).astype(np.float32), 1),
    "fourier as Conv": (fourier(256)[:, None], 0),
    "fourier with a Hamming window": (fourier(400, "hamming")[:, None], 0),
    "fourier without a window": (fourier(64, "none")[:, None], 0),
    "fourier as MatMul": (fourier(512).T, 1),
    "short fourier": (fourier(32)[:, None], 0),
    "inverse fourier as ConvTranspose": (fourier(256)[:, None], 1),
    "cosine transform of a mel spectrum": (cosine(40, 40), 0),
    "cosine transform as MatMul": (cosine(20, 128).T, 1),
    "constant Q": (constant_q()[:, None], 0),
    "mel as MatMul": (mel(80, 201).T, 1),
    "mel as Conv": (mel(64, 257)[:, :, None], 0),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_that_a_basis_is_recognised(name):
    assert is_signal_transform(*TRANSFORMS[name])


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


LEARNED = {
    "random": (random(128, 256), 0),
    "random, not negative": (np.abs(random(128, 256)), 0),
    "random and sparse": (np.where(np.random.default_rng(1).random((64, 256)) < 0.03, np.abs(random(64, 256)), 0), 0),
    "relu of random": (np.maximum(random(256, 64), 0), 1),
    "averages": (np.full((64, 64), 1 / 64, np.float32), 0),
    "smooth": (np.cumsum(random(64, 128), axis=1), 0),
    "bumps": (np.exp(-(np.linspace(-3, 3, 64) ** 2))[None].repeat(32, 0) * random(32, 1), 0),
    "pictures": (random(64, 3, 7, 7), 0),
    "zeros": (np.zeros((64, 64), np.float32), 0),
    "one": (np.ones((1, 1, 1), np.float32), 0),
    "low rank": (random(128, 2) @ random(2, 128), 0),
    "small identity": (np.eye(16, dtype=np.float32), 0),
    "small": (random(16, 16), 0),
    "small averages": (np.full((16, 16), 1 / 16, np.float32), 0),
    "identity": (np.eye(64, dtype=np.float32), 0),
}


@pytest.mark.parametrize("name", LEARNED)
def test_that_other_weights_are_not_taken_for_one(name):
    assert not is_signal_transform(*LEARNED[name])
