"""Affine and elastic deformations of images, many at once: what makes new handwriting out of old.

Each pixel of a new image takes the value of the old one at another place, which is seldom a whole pixel, by bilinear
interpolation: at the place itself after an affine map around the centre, plus a displacement that varies smoothly over
the image, noise smoothed by a Gaussian. Sources: Simard, Steinkraus and Platt, "Best practices for convolutional neural
networks applied to visual document analysis", 2003; Ciresan, Meier, Gambardella and Schmidhuber, "Deep, big, simple
neural nets for handwritten digit recognition", Neural Computation 22, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import check_integer, check_real

__all__ = ["Deformations"]


@dataclass(frozen=True)
class Deformations:
    """Random rotations, shears, scalings and elastic deformations, for `gpuprop.datasets.augmented`.

    Attributes
    ----------
    shape : tuple (height, width), default=(28, 28)
        Of the images, whose pixels lie row by row in a row of the data; outside an image all is 0.
    rotation : float, default=10.0
        The most degrees that an image is turned, to either side.
    shear : float, default=10.0
        The most degrees that an upright line is slanted.
    scaling : float, default=0.15
        The most by which height and width grow or shrink, each on its own, as a share.
    elastic : float, default=37.0
        What the smoothed noise, of values from -1 to 1 in each direction, is multiplied by: alpha, in pixels. With
        the default `sigma` 37 moves a pixel by about one.
    sigma : float, default=5.5
        The deviation of the Gaussian that smooths the noise, in pixels.

    Raises
    ------
    TypeError, ValueError
        If a setting is no number or out of its range.

    Notes
    -----
    Ciresan et al. rotate or shear digits by at most 15 degrees (7.5 for 1 and 7), scale them by 15 to 20 percent, and
    take an alpha of 36 to 38 and a sigma of 5 to 6.

    Examples
    --------
    >>> import gpuprop
    >>> import numpy as np
    >>> X, y = gpuprop.datasets.load_digits()
    >>> slanted = gpuprop.datasets.Deformations((8, 8), rotation=0, scaling=0, elastic=0)(X, np.random.default_rng(0))
    >>> slanted.shape, slanted.dtype.name
    ((1797, 64), 'uint8')
    """

    shape: tuple[int, int] = (28, 28)
    rotation: float = 10.0
    shear: float = 10.0
    scaling: float = 0.15
    elastic: float = 37.0
    sigma: float = 5.5

    def __post_init__(self) -> None:
        """Check the settings."""
        for size in self.shape:
            check_integer("shape", size, 1)
        for name, most in (("rotation", 180.0), ("shear", 90.0), ("scaling", 1.0), ("elastic", np.inf)):
            check_real(name, getattr(self, name), 0.0, most, open_maximum=True)
        check_real("sigma", self.sigma, 0.0, open_minimum=True)

    def __call__(self, X: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Return a deformed copy of each image.

        Parameters
        ----------
        X : ndarray of shape (n_images, height * width)
        rng : numpy.random.Generator

        Returns
        -------
        ndarray of the shape and dtype of X
            Whole numbers are rounded to the nearest.

        Raises
        ------
        ValueError
            If a row of X is no image of `shape`.
        """
        height, width = self.shape
        if X.ndim != 2 or X.shape[1] != height * width:
            raise ValueError(f"X: got rows of shape {X.shape[1:]}, expected images of {height} x {width} in a row each")
        down, right = self._places(len(X), rng)
        found = _interpolated(X.reshape(len(X), height, width), down, right)
        if np.issubdtype(X.dtype, np.integer):
            found = np.rint(found)
        return found.astype(X.dtype).reshape(X.shape)

    def _places(self, n_images: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return where the pixels of each new image lie in the old one, as arrays (n_images, height, width)."""
        height, width = self.shape
        turn, slant = np.deg2rad(rng.uniform(-1, 1, (2, n_images)) * [[self.rotation], [self.shear]])
        tall, wide = rng.uniform(1 - self.scaling, 1 + self.scaling, (2, n_images))
        cosine, sine, tangent = np.cos(turn), np.sin(turn), np.tan(slant)
        # The rotation times the shear [[1, 0], [tangent, 1]] times the scaling, of places (down, right).
        matrix = np.array(
            [[(cosine - sine * tangent) * tall, -sine * wide], [(sine + cosine * tangent) * tall, cosine * wide]]
        )
        (a, b), (c, d) = matrix.astype(np.float32)[:, :, :, None, None]
        y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
        x = np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2
        down, right = a * y + b * x + (height - 1) / 2, c * y + d * x + (width - 1) / 2
        if self.elastic:
            for places in (down, right):
                noise = rng.random((n_images, height, width), np.float32) * 2 - 1
                places += np.float32(self.elastic) * (self._smoothing[0] @ (noise @ self._smoothing[1]))
        return down, right

    @cached_property
    def _smoothing(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The matrices that convolve columns and rows with the Gaussian; beyond the edge there is no noise."""
        found = []
        reach = np.arange(-int(np.ceil(6 * self.sigma)), int(np.ceil(6 * self.sigma)) + 1)
        total = np.exp(-0.5 * (reach / self.sigma) ** 2).sum()
        for size in self.shape:
            distance = np.subtract.outer(np.arange(size), np.arange(size))
            found.append((np.exp(-0.5 * (distance / self.sigma) ** 2) / total).astype(np.float32))
        return found[0], found[1]


def _interpolated(images: NDArray[Any], down: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the images are at these places, by bilinear interpolation; outside they are 0."""
    n_images, height, width = images.shape
    framed = np.zeros((n_images, height + 3, width + 3), np.float32)
    framed[:, 1 : height + 1, 1 : width + 1] = images
    flat = framed.reshape(-1)
    down, right = np.clip(down + 1, 0, height + 1), np.clip(right + 1, 0, width + 1)
    top, left = down.astype(np.intp), right.astype(np.intp)  # not negative, so that this rounds down
    down -= top
    right -= left
    first = np.arange(n_images)[:, None, None] * (height + 3) * (width + 3)
    at = first + top * (width + 3) + left
    above, below = flat[at], flat[at + width + 3]
    above += (flat[at + 1] - above) * right
    below += (flat[at + width + 4] - below) * right
    found: NDArray[np.float32] = above + (below - above) * down
    return found
