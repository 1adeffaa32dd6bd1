"""`InputEmbedding`: numbers and categories become vectors before the first layer, by functions that are trained.

A number x becomes ``(W2 cos(2 pi w1 x + b1) + b2, x)``: a linear function of periodic ones, each number with weights of
its own, and the number itself (PBLD embeddings). A category becomes its row of a table. Sources: Gorishniy, Rubachev,
Babenko, "On embeddings for numerical features in tabular deep learning", NeurIPS 2022, section 3.3; Holzmueller,
Grinsztajn, Steinwart, arXiv:2407.04491, section 3; Guo and Berkhahn, "Entity embeddings of categorical variables",
arXiv:1604.06737.

It is written with NumPy's functions and serves networks on the host; no kernel knows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["InputEmbedding"]

Array = NDArray[Any]


class _Periodic(NamedTuple):
    """The parameters of the numbers' embeddings: w1, b1 (n, f), W2 (n, f, k) and b2 (n, k)."""

    frequencies: Array
    phases: Array
    weights: Array
    biases: Array


@dataclass(frozen=True)
class InputEmbedding:
    """Which columns of the inputs are embedded, and in how many numbers.

    The columns are numbers first, then columns that stay as they are, then one column of codes for each category.

    Attributes
    ----------
    n_numbers, n_plain : int
    categories : tuple of int
        The codes of each category: 0 to this number - 1.
    n_frequencies : int, default=16
        Periodic functions of a number.
    number_width : int, default=4
        Outputs of a number, itself included.
    category_width : int, default=8
        Outputs of a category.
    """

    n_numbers: int = 0
    n_plain: int = 0
    categories: tuple[int, ...] = ()
    n_frequencies: int = 16
    number_width: int = 4
    category_width: int = 8

    def __post_init__(self) -> None:
        for name in ("n_numbers", "n_plain"):
            if getattr(self, name) < 0:
                raise ValueError(f"InputEmbedding: got {name}={getattr(self, name)}, expected 0 or more")
        for name, least in (("n_frequencies", 1), ("number_width", 2), ("category_width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"InputEmbedding: got {name}={getattr(self, name)}, expected {least} or more")
        if any(count < 1 for count in self.categories):
            raise ValueError(f"InputEmbedding: got categories={self.categories}, expected positive numbers of codes")
        if self.n_inputs == 0:
            raise ValueError("InputEmbedding: got no columns, expected at least one")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InputEmbedding:
        """Return the embedding that `get_config` described."""
        return cls(**{**config, "categories": tuple(config.get("categories", ()))})

    def get_config(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self) | {"categories": list(self.categories)}

    @property
    def n_inputs(self) -> int:
        """Columns of the inputs."""
        return self.n_numbers + self.n_plain + len(self.categories)

    @property
    def n_outputs(self) -> int:
        """Numbers that the first layer gets."""
        return self.n_numbers * self.number_width + self.n_plain + len(self.categories) * self.category_width

    @property
    def sizes(self) -> tuple[int, int]:
        """How many parameters the embeddings of numbers have, and those of categories."""
        k = self.number_width - 1
        of_a_number = self.n_frequencies * (2 + k) + k
        return self.n_numbers * of_a_number, sum(self.categories) * self.category_width

    def initial(self, rng: np.random.Generator) -> list[Array]:
        """Draw parameters: frequencies from N(0, 0.1^2), phases from (-pi, pi), the linear part as PyTorch's layers.

        Rows of the categories' tables come from N(0, 1).
        """
        n, f, k = self.n_numbers, self.n_frequencies, self.number_width - 1
        bound = 1 / math.sqrt(f)
        numbers = [
            0.1 * rng.standard_normal(n * f),
            rng.uniform(-math.pi, math.pi, n * f),
            rng.uniform(-bound, bound, n * f * k),
            rng.uniform(-bound, bound, n * k),
        ]
        return [np.concatenate(numbers), rng.standard_normal(self.sizes[1])]

    def _periodic(self, flat: Array) -> _Periodic:
        """Return views of the numbers' parameters."""
        n, f, k = self.n_numbers, self.n_frequencies, self.number_width - 1
        ends = np.cumsum([n * f, n * f, n * f * k, n * k])
        frequencies, phases, weights, biases = np.split(flat, ends[:-1])
        return _Periodic(
            frequencies.reshape(n, f), phases.reshape(n, f), weights.reshape(n, f, k), biases.reshape(n, k)
        )

    def _tables(self, flat: Array) -> list[Array]:
        """Return a view of each category's table, (codes, category_width)."""
        ends = np.cumsum([count * self.category_width for count in self.categories])
        return [table.reshape(-1, self.category_width) for table in np.split(flat, ends[:-1])] if len(ends) else []

    def codes(self, x: Array) -> list[Array]:
        """Return the codes of each category, as integers; a code out of range is that of the first row.

        Code 0 stands for what training has not seen.
        """
        columns = x[:, self.n_numbers + self.n_plain :].T
        found = [column.astype(np.int64) for column in columns]
        return [np.where((c < 0) | (c >= count), 0, c) for c, count in zip(found, self.categories, strict=True)]

    def forward(self, x: Array, parameters: Sequence[Array], out: Array) -> None:
        """Write the first layer's inputs to `out`.

        The columns of `out` are the periodic part of each number, the numbers, the columns that stay as they are, and
        the row of each category.

        Parameters
        ----------
        x : ndarray of shape (n_rows, n_inputs)
        parameters : two flat arrays of `sizes`
        out : ndarray of shape (n_rows, n_outputs)
        """
        n, k, at = self.n_numbers, self.number_width - 1, self.n_numbers + self.n_plain
        if n:
            own = self._periodic(parameters[0])
            waves = self._waves(x, own)
            out[:, : n * k] = (np.einsum("bnf,nfk->bnk", waves, own.weights) + own.biases).reshape(len(x), n * k)
        out[:, n * k : n * k + at] = x[:, :at]
        place = n * k + at
        for code, table in zip(self.codes(x), self._tables(parameters[1]), strict=True):
            out[:, place : place + self.category_width] = table[code]
            place += self.category_width

    def _waves(self, x: Array, own: _Periodic) -> Array:
        """``cos(2 pi w1 x + b1)`` of every number, (n_rows, n_numbers, n_frequencies)."""
        return np.asarray(np.cos(self._angles(x, own)))

    def _angles(self, x: Array, own: _Periodic) -> Array:
        turn = x.dtype.type(2 * math.pi)
        return np.asarray(turn * own.frequencies * x[:, : self.n_numbers, None] + own.phases)

    def backward(self, x: Array, delta: Array, parameters: Sequence[Array], gradients: Sequence[Array]) -> None:
        """Add the gradient of the loss to `gradients`.

        Parameters
        ----------
        x : ndarray of shape (n_rows, n_inputs)
        delta : ndarray of shape (n_rows, n_outputs)
            The loss's derivative by what `forward` wrote.
        parameters, gradients : two flat arrays of `sizes`
        """
        n, k = self.n_numbers, self.number_width - 1
        if n:
            own, of = self._periodic(parameters[0]), self._periodic(gradients[0])
            angles = self._angles(x, own)
            given = delta[:, : n * k].reshape(len(x), n, k)
            of.weights[...] += np.einsum("bnf,bnk->nfk", np.cos(angles), given)
            of.biases[...] += given.sum(axis=0)
            of_angles = -np.sin(angles) * np.einsum("bnk,nfk->bnf", given, own.weights)
            of.phases[...] += of_angles.sum(axis=0)
            turn = x.dtype.type(2 * math.pi)
            of.frequencies[...] += turn * np.einsum("bnf,bn->nf", of_angles, x[:, :n])
        place = n * k + n + self.n_plain
        for code, table in zip(self.codes(x), self._tables(gradients[1]), strict=True):
            np.add.at(table, code, delta[:, place : place + self.category_width])
            place += self.category_width
