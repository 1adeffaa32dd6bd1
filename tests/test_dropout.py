"""The generator against its published known answers, and the masks drawn from it."""

from __future__ import annotations

import numpy as np
import pytest

from gpuprop.maths.dropout import keep_mask, keep_threshold, philox4x32

# Random123's kat_vectors file, philox4x32-10: counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, expected: str) -> None:
    c = [np.array([word], np.uint64) for word in words(counter)]
    k = words(key)
    assert [int(word[0]) for word in philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1]))] == words(expected)


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """The paper's round function in Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3])
def test_each_element_takes_the_word_of_its_place(seed: int) -> None:
    mask = keep_mask(0.3, seed=seed, layer=2, step=9, n_rows=5, n_columns=7, first_row=3)
    for row in range(5):
        for column in range(7):
            word = scalar_philox([column // 4, row + 3, 2, 9], [seed % 2**32, seed >> 32])[column % 4]
            assert mask[row, column] == ((word >> 8) < round(0.7 * 2**24))


def test_parts_of_a_batch_make_the_batch() -> None:
    whole = keep_mask(0.5, seed=1, layer=1, step=2, n_rows=7, n_columns=17)
    parts = [
        keep_mask(0.5, seed=1, layer=1, step=2, n_rows=3, n_columns=17),
        keep_mask(0.5, seed=1, layer=1, step=2, n_rows=4, n_columns=17, first_row=3),
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_share_kept(rate: float) -> None:
    mask = keep_mask(rate, seed=11, layer=1, step=0, n_rows=400, n_columns=250)
    # Five standard deviations of a binomial share of 100,000 draws.
    assert abs(mask.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / mask.size)


def test_seed_layer_and_step_each_change_the_mask() -> None:
    masks = [
        keep_mask(0.5, seed=seed, layer=layer, step=step, n_rows=20, n_columns=20)
        for seed, layer, step in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32, 0, 0)]
    ]
    for i, first in enumerate(masks):
        for second in masks[i + 1 :]:
            assert 0.3 < (first == second).mean() < 0.7


def test_thresholds_of_the_ends() -> None:
    assert keep_threshold(0.0) == 2**24
    assert keep_mask(0.0, seed=0, layer=0, step=0, n_rows=50, n_columns=50).all()
