"""How networks and trainers are shown, and the manners of small things: probabilities, shapes, names."""

from __future__ import annotations

import numpy as np
import pytest

import gpuprop

X = np.random.default_rng(0).normal(size=(6, 4))


def test_summary_and_html_count_all_parameters() -> None:
    for options in ({}, {"slopes": True}, {"dropout": 0.5}):
        net = gpuprop.Network((4, 8, 3), loss="categorical_cross_entropy", seed=0, device="numpy", **options)
        lines = net.summary().splitlines()
        assert sum(int(line.split()[-1]) for line in lines[2:4]) == net.n_parameters
        assert f"{net.n_parameters:,} parameters" in lines[-1]
        page = net._repr_html_()
        assert page.count("<tr>") == 4
        assert page.count("<td>8</td>") == 1
    assert "dropout 0, 0.5" in lines[-1]


def test_trainers_say_where_they_stand() -> None:
    trainer = gpuprop.Trainer(gpuprop.Network((4, 2), seed=0, device="numpy"), epochs=3)
    assert repr(trainer).endswith("adam, rate 0.001, 0 of 3 epochs in batches of 128)")
    assert "3 of 3 epochs" in repr(trainer.fit(X, X[:, :2]))


def test_probabilities_of_a_network() -> None:
    net = gpuprop.Network((4, 3), loss="categorical_cross_entropy", seed=0, device="numpy")
    np.testing.assert_array_equal(net.predict_proba(X), net.forward(X))
    net = gpuprop.Network((4, 1), loss="binary_cross_entropy", seed=0, device="numpy")
    np.testing.assert_allclose(net.predict_proba(X), np.hstack([1 - net.forward(X), net.forward(X)]))
    with pytest.raises(AttributeError, match="are no probabilities; use forward"):
        gpuprop.Network((4, 1), seed=0, device="numpy").predict_proba(X)


def test_images_that_are_not_rows_are_told_how_to_become_some() -> None:
    net = gpuprop.Network((784, 2), seed=0, device="numpy")
    with pytest.raises(ValueError, match=r"use X\.reshape\(len\(X\), -1\), shape \(5, 784\)"):
        net.forward(np.zeros((5, 28, 28)))


def test_the_package_shows_its_public_names_only() -> None:
    shown = {name for name in dir(gpuprop) if not name.startswith("__")}
    assert shown == {name for name in gpuprop.__all__ if not name.startswith("__")}


def test_labels_of_text_are_the_classes() -> None:
    names = ["ash", "elm", "oak"]
    net = gpuprop.Network((4, 3), loss="categorical_cross_entropy", seed=0, device="numpy", classes=names)
    y = np.array([0, 1, 2, 2, 1, 0])
    twin = net.copy()
    gpuprop.Trainer(net, epochs=2, validation=0.34).fit(X, [names[i] for i in y])
    gpuprop.Trainer(twin, epochs=2, validation=0.34).fit(X, y)
    np.testing.assert_array_equal(net.host_parameters(), twin.host_parameters())
    assert net.evaluate(X, np.array(names, object)[y]) == net.evaluate(X, y)
    with pytest.raises(ValueError, match="got the label 'fir', expected one of the network's classes: 'ash',"):
        net.evaluate(X, ["fir"] * 6)
