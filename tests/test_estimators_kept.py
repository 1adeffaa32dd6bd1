"""Estimators with checkpoints: a fit that was killed at any update ends as one that was left alone, bit for bit."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpuprop
from gpuprop import Checkpoint, MLPClassifier, MLPEnsemble
from gpuprop.training.checkpoint import newest
from tests.test_estimators_undone import batches, facts, model_of

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Killed(BaseException):
    """The process is gone: nothing that the package does after it may matter."""


class Kill(gpuprop.Callback):
    """Ends everything at an update, or looks on."""

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self.at = epoch, step

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        if (epoch, step) == self.at:
            raise Killed


def assert_equal(found: Any, expected: Any) -> None:
    """Compare all but paths, and the sentence that says how the updates were made."""
    left = ("checkpoint", "plan_")
    one, other = (
        {name: value for name, value in facts(model).items() if name not in left} for model in (found, expected)
    )
    np.testing.assert_equal(one, other)


def generator() -> np.random.RandomState:
    return np.random.RandomState(3)


VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {"random_state": 0},
    "early stopping": {"random_state": generator, "early_stopping": True, "n_iter_no_change": 2, "tol": 0.05},
    "adaptive": {
        "random_state": 0, "order_random_state": generator, "solver": "sgd", "learning_rate": "adaptive",
        "n_iter_no_change": 1, "tol": 0.3,
    },
    "cosine, dropout": {"random_state": 1, "learning_rate": "cosine", "dropout": 0.2, "clip_norm": 1.0},
}  # fmt: skip


def variant(name: str, kind: str, **parameters: Any) -> Any:
    given = {key: value() if value is generator else value for key, value in VARIANTS[name].items()}
    return model_of(kind, max_iter=5, **given | parameters)


@pytest.mark.parametrize(
    ("name", "kind", "plan"),
    [
        ("adam", "classifier", "fused"),
        ("early stopping", "classifier", "steps"),
        ("early stopping", "regressor", "fused"),
        ("adaptive", "classifier", "steps"),
        ("cosine, dropout", "regressor", "steps"),
    ],
)
def test_a_killed_fit_ends_as_one_that_was_left_alone(kind: str, plan: str, name: str, tmp_path: Path) -> None:
    (X, y), *later = batches(kind)
    weight = np.linspace(0.5, 1.5, len(X))
    alone = variant(name, kind, plan=plan, callbacks=[Kill()]).fit(X, y, weight)
    checkpoint = Checkpoint(tmp_path, "1 update")

    def again(*at: int) -> Any:
        return variant(name, kind, plan=plan, callbacks=[Kill(*at)], checkpoint=checkpoint)

    # Killed before there is a checkpoint, within an epoch, and at its end; each time a new process goes on.
    for at in ((1, 1), (1, 3), (2, 1)):
        with pytest.raises(Killed):
            again(*at).fit(X, y, weight)
    model = again().fit(X, y, weight)
    assert_equal(model, alone)
    # What is finished is not repeated: nothing but the end of an earlier process is read.
    for _ in range(2):
        finished = again(model.n_iter_, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            finished.fit(X, y, weight)
        assert finished.plan_.startswith("no updates: the fit was finished")
        assert_equal(finished, alone)
    # And it can be trained further.
    for one in (model, finished, alone):
        one.set_params(early_stopping=False, callbacks=[Kill()])
        for batch in later[:2]:
            one.partial_fit(*batch)
    assert_equal(model, alone)
    assert_equal(finished, alone)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.suffix for path in folder.iterdir()) == [".safetensors"] * 2
    assert gpuprop.load(newest(folder).path).layer_sizes == alone.network_.layer_sizes  # type: ignore[union-attr]


def test_without_a_random_state_the_first_draw_is_kept(tmp_path: Path) -> None:
    (X, y), *_ = batches("classifier")

    def again(*at: int) -> Any:
        given: dict[str, Any] = {"checkpoint": tmp_path, "early_stopping": True, "n_iter_no_change": 9}
        return model_of("classifier", max_iter=3, callbacks=[Kill(*at)], **given)

    given = again(2, 1).set_params(checkpoint=Checkpoint(tmp_path, "1 update", extra={"note": "mine"}))
    with pytest.raises(Killed):
        given.fit(X, y)
    (folder,) = tmp_path.iterdir()
    stored = newest(folder)
    assert stored is not None
    assert stored.extra["note"] == "mine"
    model = again().fit(X, y)
    alone = again().set_params(checkpoint=None, random_state=stored.extra["seed"]).fit(X, y)
    assert_equal(model.set_params(random_state=stored.extra["seed"]), alone)


def test_another_fit_begins_anew_beside_it(tmp_path: Path) -> None:
    (X, y), (other_X, other_y), *_ = batches("classifier")
    model = model_of("classifier", random_state=0, max_iter=1, checkpoint=tmp_path).fit(X, y)
    momentum = gpuprop.optimizers.Momentum
    changes: list[dict[str, Any]] = [
        {"alpha": 0.5}, {"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": np.array([7])}, {"random_state": 1},
        {"random_state": np.random.RandomState(0)}, {"max_iter": 2}, {"class_weight": {0: 2.0}},
        {"class_weight": {0: 3.0}}, {"solver": momentum(0.5)}, {"solver": momentum(0.6)},
    ]  # fmt: skip
    for change in changes:
        clone(clone(model).set_params(**change)).fit(X, y)  # with a copy of its generator
    clone(model).fit(other_X, other_y)
    clone(model).fit(X, y, np.full(len(X), 0.5))
    clone(model).fit(X, y, X_val=other_X, y_val=other_y)
    folders = len(list(tmp_path.iterdir()))
    assert folders == 1 + len(changes) + 3
    alike: list[dict[str, Any]] = [{"verbose": False, "n_threads": 1, "plan": "steps"}, {"warm_start": True}, *changes]
    for same in alike:
        clone(clone(model).set_params(**same)).fit(X, y)
    assert len(list(tmp_path.iterdir())) == folders
    changed = clone(model).set_params(alpha=0.5)
    assert_equal(clone(changed).fit(X, y), clone(changed).set_params(checkpoint=None).fit(X, y))


def test_a_warm_start_goes_on_from_its_own_beginning(tmp_path: Path) -> None:
    (X, y), *_ = batches("regressor")

    def begun() -> Any:
        return model_of("regressor", random_state=0, max_iter=3, warm_start=True).fit(X, y)

    alone = begun().set_params(callbacks=[Kill()]).fit(X, y)
    checkpoint = Checkpoint(tmp_path, "1 update")
    with pytest.raises(Killed):
        begun().set_params(checkpoint=checkpoint, callbacks=[Kill(2, 2)]).fit(X, y)
    model = begun().set_params(checkpoint=checkpoint, callbacks=[Kill()]).fit(X, y)
    assert len(model.loss_curve_) == 6
    assert_equal(model, alone)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    (X, y), *_ = batches("regressor")
    checkpoint = Checkpoint(tmp_path, "1 update")
    given: dict[str, Any] = {"random_state": 0, "max_iter": 4}
    with pytest.raises(Killed):
        model_of("regressor", checkpoint=checkpoint, callbacks=[Kill(3, 3)], **given).fit(X, y)
    file = max(next(tmp_path.iterdir()).iterdir())
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.warns(RuntimeWarning, match=file.name):
        model = model_of("regressor", checkpoint=checkpoint, callbacks=[Kill()], **given).fit(X, y)
    assert_equal(model, model_of("regressor", callbacks=[Kill()], **given).fit(X, y))


def test_a_signal_ends_a_fit_with_a_checkpoint(tmp_path: Path) -> None:
    class Ask(gpuprop.Callback):
        def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
            if (epoch, step) == (2, 1):
                os.kill(os.getpid(), signal.SIGTERM)

    (X, y), *_ = batches("classifier")
    given: dict[str, Any] = {"random_state": 0, "max_iter": 4}
    with pytest.raises(gpuprop.TrainingEnded) as ended:
        model_of("classifier", checkpoint=tmp_path, callbacks=[Ask()], **given).fit(X, y)
    assert ended.value.signal == signal.SIGTERM
    stored = newest(next(tmp_path.iterdir()))
    assert stored is not None
    assert stored.progress.within is not None
    assert stored.progress.within.position == 1
    model = model_of("classifier", checkpoint=tmp_path, callbacks=[Kill()], **given).fit(X, y)
    assert_equal(model, model_of("classifier", callbacks=[Kill()], **given).fit(X, y))


def test_lbfgs_has_no_checkpoints(tmp_path: Path) -> None:
    (X, y), *_ = batches("regressor")
    with pytest.raises(ValueError, match="'checkpoint' parameter has no meaning with solver 'lbfgs'"):
        model_of("regressor", solver="lbfgs", checkpoint=tmp_path).fit(X, y)


def test_a_model_file_names_no_folder(tmp_path: Path) -> None:
    (X, y), *_ = batches("classifier")
    model = model_of("classifier", random_state=0, max_iter=2, checkpoint=tmp_path / "kept").fit(X, y)
    model.save(tmp_path / "model")
    assert b"kept" not in (tmp_path / "model").read_bytes()
    read: Any = gpuprop.load(tmp_path / "model")
    assert read.checkpoint is None


# --- ensembles and searches ------------------------------------------------------------------------------------


class Count(gpuprop.Callback):
    """Counts epochs of all fits of a process, and kills it before one."""

    done = 0
    last: float = np.inf

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        if Count.done >= Count.last:
            raise Killed
        Count.done += 1

    def __deepcopy__(self, memo: Any) -> Count:
        return self


@pytest.fixture(autouse=True)
def counted() -> None:
    Count.done, Count.last = 0, np.inf


@pytest.mark.parametrize("shared_order", [True, False])
def test_a_killed_ensemble_goes_on(shared_order: bool, tmp_path: Path) -> None:
    (X, y), *_ = batches("regressor")

    def again(checkpoint: Any) -> Any:
        inner = model_of("regressor", max_iter=4, callbacks=[Count()], checkpoint=checkpoint)
        return MLPEnsemble(inner, n_networks=3, random_state=0, shared_order=shared_order)

    alone = again(None).fit(X, y)
    assert Count.done == 12
    Count.done, Count.last = 0, 5  # two members have begun their second epoch, one has not
    with pytest.raises(Killed):
        again(Checkpoint(tmp_path, "1 epoch")).fit(X, y)
    Count.done, Count.last = 0, np.inf
    ensemble = again(Checkpoint(tmp_path, "1 epoch")).fit(X, y)
    assert 12 - 5 <= Count.done < 12
    for member, other in zip(ensemble.estimators_, alone.estimators_, strict=True):
        assert_equal(member, other)
    Count.done = 0
    again(tmp_path).fit(X, y)
    assert Count.done == 0


def test_an_ensemble_needs_a_seed_for_checkpoints(tmp_path: Path) -> None:
    (X, y), *_ = batches("regressor")
    with pytest.raises(ValueError, match="random_state"):
        MLPEnsemble(model_of("regressor", checkpoint=tmp_path), n_networks=2).fit(X, y)


def test_a_killed_search_repeats_no_finished_fit(tmp_path: Path) -> None:
    (X, y), *_ = batches("classifier")

    def searched(checkpoint: Any, **options: Any) -> Any:
        inner = model_of("classifier", max_iter=3, random_state=0, callbacks=[Count()], checkpoint=checkpoint)
        pipeline = make_pipeline(StandardScaler(), inner)
        grid = {"mlpclassifier__hidden_layer_sizes": [(5,), (6,), (7,), (8,)]}
        return gpuprop.search(pipeline, grid, X, y, cv=2, **options)

    alone = searched(None)
    assert Count.done == 3 * (8 + 1)
    Count.done, Count.last = 0, 17
    with pytest.raises(Killed):
        searched(Checkpoint(tmp_path, "1 epoch"))
    Count.done, Count.last = 0, np.inf
    found = searched(Checkpoint(tmp_path, "1 epoch"))
    assert 27 - 17 <= Count.done <= 27 - 8
    for name, values in alone.cv_results_.items():
        if "time" not in name:
            np.testing.assert_array_equal(found.cv_results_[name], values)
    assert_equal(found.best_estimator_[-1], alone.best_estimator_[-1])
    Count.done = 0
    searched(tmp_path)
    assert Count.done == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_search(number: int, tmp_path: Path) -> None:
    """A fit that was interrupted has no score, and the fits that have not begun do not begin."""

    class Ask(Count):
        asked = False

        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            if epoch == 2 and not self.asked:
                self.asked = True
                os.kill(os.getpid(), number)

    (X, y), *_ = batches("classifier")
    inner = model_of("classifier", max_iter=3, random_state=0, callbacks=[Ask()], checkpoint=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the fits were interrupted
        with pytest.raises((KeyboardInterrupt, gpuprop.TrainingEnded)):
            gpuprop.search(inner, {"alpha": [0.1, 0.2, 0.3]}, X, y, cv=2)
    assert Count.done == 2 * 6
    gpuprop.search(inner.set_params(callbacks=[Count()]), {"alpha": [0.1, 0.2, 0.3]}, X, y, cv=2)
    assert Count.done == 3 * 7


def test_scikit_learns_own_tools_share_a_folder(tmp_path: Path) -> None:
    (X, y), *_ = batches("classifier")
    model = MLPClassifier((5,), random_state=0, max_iter=4, device="cpu", checkpoint=str(tmp_path), callbacks=[Count()])
    scores = cross_val_score(model, X, y, cv=3)
    assert len(list(tmp_path.iterdir())) == 3
    Count.done = 0
    np.testing.assert_array_equal(cross_val_score(model, X, y, cv=3), scores)
    assert Count.done == 0
    np.testing.assert_array_equal(cross_val_score(clone(model).set_params(checkpoint=None), X, y, cv=3), scores)
