"""The solver "lbfgs": SciPy's L-BFGS-B over the network's loss and gradient."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

if TYPE_CHECKING:
    from gpuprop.core.data import TrainingData
    from gpuprop.model.network import Network

__all__ = ["PLAN", "minimize"]

#: ``plan_`` of an estimator with this solver.
PLAN = "lbfgs: SciPy's L-BFGS-B over the whole data set"


def minimize(
    network: Network, data: TrainingData, *, tol: float, max_iter: int, max_fun: int, verbose: bool
) -> tuple[float, int]:
    """Minimise the loss of `network` on `data`, penalties divided by the sum of sample weights.

    Parameters
    ----------
    network : Network
        It has the parameters of the minimum afterwards.
    data : TrainingData
    tol : float
        The search ends when no component of the gradient is larger.
    max_iter, max_fun : int
        Bounds on the iterations and on the evaluations of loss and gradient.
    verbose : bool
        Whether to print the loss after each iteration.

    Returns
    -------
    loss : float
    n_iter : int

    Warns
    -----
    ConvergenceWarning
        If the search reached a bound first, or the line search failed.
    """
    import scipy.optimize

    objective = network.objective(data, penalty_factor=1.0 / data.total_weight)

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        network.set_parameters(flat)
        loss, gradient = objective()
        return loss, gradient.astype(np.float64)

    iteration = 0

    def report(intermediate_result: Any) -> None:
        nonlocal iteration
        iteration += 1
        if verbose:
            print(f"Iteration {iteration}, loss = {intermediate_result.fun:.8f}")

    # A trial step of the line search may overflow; L-BFGS-B then takes a shorter one.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        result = scipy.optimize.minimize(
            loss_and_gradient,
            network.host_parameters().astype(np.float64),
            method="L-BFGS-B",
            jac=True,
            callback=report,
            options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
        )
    network.set_parameters(result.x)
    if result.status != 0:
        raise_bound = f"; increase max_iter (now {max_iter})" if result.nit >= max_iter else ""
        warnings.warn(
            f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}): {result.message}"
            f"{raise_bound}, or scale the data (https://scikit-learn.org/stable/modules/preprocessing.html)",
            ConvergenceWarning,
            stacklevel=2,
        )
    return float(result.fun), min(int(result.nit), max_iter)
