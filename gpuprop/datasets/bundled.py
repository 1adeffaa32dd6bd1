"""The built-in data sets, which need no file from the user: MNIST, the digits of scikit-learn, and XOR."""

from __future__ import annotations

import importlib.util
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.dataset import Dataset
from gpuprop.datasets.idx import parse_idx

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_mnist() -> tuple[Part, Part]:
    """Load all MNIST handwritten digits, without internet access: 60,000 for training, 10,000 for testing.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        ``X`` uint8 of shape (60000, 784) and (10000, 784), each row an image of 28 x 28 grey values from 0 (paper)
        to 255 (ink), row by row. ``y`` int64, the digits 0 to 9; they are int64 because they serve as indices, and
        because arithmetic on uint8 labels would wrap around.

    Raises
    ------
    DataError
        If the files of the package are damaged.

    Notes
    -----
    The four files unpack to those of the original distribution, byte for byte. MNIST was made by Yann LeCun,
    Corinna Cortes and Christopher J. C. Burges from the NIST Special Databases 1 and 3, and is available under the
    Creative Commons Attribution-ShareAlike 3.0 licence (https://creativecommons.org/licenses/by-sa/3.0/).

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document recognition. Proceedings
    of the IEEE 86 (11), 1998, 2278-2324.

    Examples
    --------
    >>> import gpuprop
    >>> (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    >>> X.shape, X_test.shape
    ((60000, 784), (10000, 784))
    """
    return _mnist_part("train"), _mnist_part("t10k")


def _mnist_part(part: str) -> Part:
    images = _mnist_file(f"{part}-images-idx3-ubyte.gz")
    labels = _mnist_file(f"{part}-labels-idx1-ubyte.gz")
    return images.reshape(len(images), -1), labels.astype(np.int64)


def _mnist_file(name: str) -> NDArray[np.uint8]:
    data = resources.files(__package__).joinpath("mnist", name).read_bytes()
    return parse_idx(io.BytesIO(data), len(data), name, compressed=True)


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Load scikit-learn's 1,797 handwritten digits.

    Returns
    -------
    X : ndarray of uint8, shape (1797, 64)
        Images of 8 x 8, row by row; whole numbers from 0 (paper) to 16 (ink), so that uint8 holds them exactly.
    y : ndarray of int64, shape (1797,)
        The digits 0 to 9.

    References
    ----------
    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.load_digits()
    >>> X.shape, X.max()
    ((1797, 64), np.uint8(16))
    """
    path = _digits_file()
    if path is None:  # a scikit-learn that keeps its data in another place
        from sklearn.datasets import load_digits as load_digits_of_sklearn

        X, y = load_digits_of_sklearn(return_X_y=True)
        return X.astype(np.uint8), y.astype(np.int64)
    table = np.loadtxt(path, np.uint8, delimiter=",")
    return np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64)


def _digits_file() -> Path | None:
    """Return scikit-learn's file of digits, found without a second's import of ``sklearn.datasets``."""
    package = importlib.util.find_spec("sklearn")
    folders = () if package is None else package.submodule_search_locations or ()
    paths = (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def make_xor(repeats: int = 1, noise: float = 0.0, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make the exclusive-or problem: the class says whether exactly one of the two inputs is 1.

    No straight line separates the classes, so a perceptron without a hidden layer cannot learn them.

    Parameters
    ----------
    repeats : int, default 1
        How often the four rows (0, 0), (0, 1), (1, 0), (1, 1) are repeated.
    noise : float, default 0.0
        Standard deviation of normal noise on the inputs.
    seed : int, default 0
        The seed of the noise.

    Returns
    -------
    X : ndarray of float32, shape (4 * repeats, 2)
    y : ndarray of int64, shape (4 * repeats,)
        0 or 1.

    Raises
    ------
    ValueError
        If ``repeats`` is below 1, or ``noise`` is negative or not finite.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> X.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    if repeats < 1:
        raise ValueError(f"got repeats {repeats}, expected at least 1")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"got noise {noise}, expected a finite number from 0")
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    X = np.tile(corners, (repeats, 1))
    y = np.tile(np.array([0, 1, 1, 0], np.int64), repeats)
    if noise:
        X += np.random.default_rng(seed).normal(0.0, noise, X.shape).astype(np.float32)
    return X, y


def _mnist() -> Dataset:
    (X, y), test = load_mnist()
    return _classification("mnist", X, y, 10, test)


def _digits() -> Dataset:
    return _classification("digits", *load_digits(), 10, None)


def _xor() -> Dataset:
    """Return XOR; its four rows are all there are, so they are the test part too."""
    X, y = make_xor()
    return _classification("xor", X, y, 2, (X, y))


def _classification(
    name: str, X: NDArray[Any], y: NDArray[np.int64], n_classes: int, test: tuple[NDArray[Any], NDArray[Any]] | None
) -> Dataset:
    return Dataset(name=name, X=X, y=y, task="classification", classes=list(range(n_classes)), test=test)


BUNDLED = {"mnist": _mnist, "digits": _digits, "xor": _xor}
