"""Runs to look at: what a run writes as it goes, the page that shows it, animations."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.cli.animate import write_film
from gpuprop.learn.live.animation import to_html
from gpuprop.learn.live.frames import GRID, MAX_FRAMES, Recorder
from gpuprop.learn.live.reader import RunReader
from gpuprop.learn.live.server import HOST, make_server
from gpuprop.learn.live.snapshot import HISTORY_FILE, SNAPSHOT_FILE, LiveRun, image_shape
from gpuprop.training.orders import held_out_places
from tests.browser import dom, needs_chromium
from tests.cli_tools import Cli, contents, read_csv


def digits_run(folder: Path, epochs: int = 3) -> tuple[gpuprop.Trainer, Any, Any]:
    X, y = gpuprop.datasets.load_digits()
    X, y = X[:300], y[:300]
    network = gpuprop.Network((64, 8, 10), loss="categorical_cross_entropy", seed=0, device="numpy", classes=range(10))
    callbacks = [LiveRun(folder, X, y)]
    return gpuprop.Trainer(network, epochs=epochs, validation=0.1, callbacks=callbacks).fit(X, y), X, y


def xor_film(epochs: int = 300) -> tuple[gpuprop.Trainer, Recorder]:
    X, y = gpuprop.datasets.make_xor()
    network = gpuprop.Network((2, 3, 1), loss="binary_cross_entropy", seed=1, device="numpy", hidden_activation="tanh")
    recorder = Recorder(X, y)
    trainer = gpuprop.Trainer(network, learning_rate=0.05, batch_size=4, epochs=epochs, callbacks=[recorder])
    return trainer.fit(X, y), recorder


@contextmanager
def served(folder: Path) -> Iterator[int]:
    with make_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


# --- what a run writes -----------------------------------------------------------------------------------------


def test_history_grows_by_a_line_an_epoch(tmp_path: Path) -> None:
    trainer, _, _ = digits_run(tmp_path)
    rows = read_csv(tmp_path / HISTORY_FILE)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["validation_loss"]) for row in rows] == trainer.history["validation_loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [HISTORY_FILE, SNAPSHOT_FILE]


def test_snapshot_of_the_last_epoch(tmp_path: Path) -> None:
    trainer, X, y = digits_run(tmp_path)
    found = json.loads((tmp_path / SNAPSHOT_FILE).read_text())
    assert (found["epoch"], found["epochs"], found["samples"], found["network"]) == (3, 3, 270, "64-8-10")
    held_out = held_out_places(len(X), 0.1, trainer.seed)
    assert (found["watched"], found["watched_part"]) == (30, "validation")
    right = trainer.network.forward(X[held_out]).argmax(axis=1) == y[held_out]
    assert right.mean() == pytest.approx(trainer.history["validation_accuracy"][-1])
    wrong = held_out[~right]
    assert [mistake["row"] for mistake in found["mistakes"]] == wrong[:24].tolist()
    first = found["mistakes"][0]
    assert first["true"] == str(y[wrong[0]]) != first["predicted"]
    assert first["image"]["shape"] == [8, 8]
    pixels = np.array(first["image"]["pixels"])
    np.testing.assert_allclose(pixels, 255.0 * X[wrong[0]] / X[wrong[0]].max(), atol=0.51)
    weights = trainer.network.weights[0]
    images = np.array(found["weights"]["images"])
    assert images.shape == (8, 64)
    np.testing.assert_allclose(
        (images - 127.5) / 127.5 * np.abs(weights).max(), weights.T, atol=np.abs(weights).max() / 200
    )


def test_watching_changes_no_bit(tmp_path: Path) -> None:
    watched, X, y = digits_run(tmp_path)
    network = gpuprop.Network((64, 8, 10), loss="categorical_cross_entropy", seed=0, device="numpy", classes=range(10))
    gpuprop.Trainer(network, epochs=3, validation=0.1).fit(X, y)
    np.testing.assert_array_equal(watched.network.parameters, network.parameters)


def test_regressions_have_no_mistakes_and_odd_widths_no_pictures(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    network = gpuprop.Network((3, 2, 1), seed=0, device="numpy")
    gpuprop.Trainer(network, epochs=1, callbacks=[LiveRun(tmp_path, X, X[:, 0])]).fit(X, X[:, 0])
    found = json.loads((tmp_path / SNAPSHOT_FILE).read_text())
    assert found["mistakes"] == []
    assert found["weights"]["shape"] == [1, 3]
    assert [image_shape(n) for n in (4, 15, 16, 784, 785, 4096, 4225)] == [
        None, None, (4, 4), (28, 28), None, (64, 64), None,
    ]  # fmt: skip


# --- the page --------------------------------------------------------------------------------------------------


def test_state_from_waiting_to_finished(tmp_path: Path) -> None:
    reader = RunReader(tmp_path / "run")
    assert reader.state()["status"] == "waiting"
    staging = tmp_path / "run" / ".gpuprop-abc"
    staging.mkdir(parents=True)
    assert reader.state()["status"] == "waiting"
    trainer, _, _ = digits_run(staging)
    running = reader.state()
    assert running["status"] == "running"
    assert running["history"]["train_loss"] == trainer.history["train_loss"]
    # A line and a snapshot that are being written, or broken, are left out.
    with (staging / HISTORY_FILE).open("a") as file:
        file.write("4,0.1")
    (staging / SNAPSHOT_FILE).write_text('{"epoch": ')
    again = reader.state()
    assert again["history"]["epoch"] == [1, 2, 3]
    assert again["mistakes"] == running["mistakes"]
    shutil.move(staging / HISTORY_FILE, tmp_path / "run")
    (staging / SNAPSHOT_FILE).write_text('{"epoch": 3}')
    assert reader.state()["history"] == again["history"]  # published, but the run still draws pictures
    (staging / SNAPSHOT_FILE).write_text(json.dumps({"epoch": 3, "mistakes": again["mistakes"]}))
    reader.state()
    shutil.rmtree(staging)
    finished = reader.state()
    assert (finished["status"], finished["mistakes"]) == ("finished", running["mistakes"])


def test_a_finished_run_shows_its_model(tmp_path: Path) -> None:
    trainer, _, _ = digits_run(tmp_path)
    (tmp_path / SNAPSHOT_FILE).unlink()
    trainer.network.save(tmp_path / "model.safetensors")
    state = RunReader(tmp_path).state()
    assert (state["status"], state["network"], len(state["weights"]["images"])) == ("finished", "64-8-10", 8)
    assert "mistakes" not in state


def test_over_http(tmp_path: Path) -> None:
    digits_run(tmp_path)
    with served(tmp_path) as port:
        status, page, headers = get(port, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org/2000/svg)", page)
        status, text, headers = get(port, "/state.json")
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert json.loads(text)["history"]["epoch"] == [1, 2, 3]
        assert get(port, "/state.json", "localhost:80")[0] == 200
        assert get(port, "/state.json", "evil.example")[0] == 403
        assert get(port, "/state.json", f"evil.example:{port}")[0] == 403
        assert get(port, "/../history.csv")[0] == 404
        assert get(port, "/", method="POST")[0] == 501
        with pytest.raises(gpuprop.GpupropError, match=f"port {port} on 127.0.0.1"):
            make_server(tmp_path, port)


@needs_chromium
def test_in_a_browser(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".gpuprop-abc").mkdir(parents=True)
    trainer, _, _ = digits_run(run / ".gpuprop-abc")
    with served(run) as port:
        page = dom(f"http://{HOST}:{port}/", tmp_path / "profile")
    assert '<p class="soft" id="status">running</p>' in page
    assert "<b>3 of 3</b>" in page
    assert f"<b>{trainer.history['train_accuracy'][-1]:.4f}</b>" in page
    assert "samples a second" in page
    assert page.count("<polyline") == 4
    assert page.count("<canvas") == 8 + 24
    assert page.count("</figcaption>") == 24


# --- animations ------------------------------------------------------------------------------------------------


def test_frames_begin_before_the_first_epoch_and_end_with_the_last() -> None:
    trainer, film = xor_film()
    epochs = [frame.epoch for frame in film.frames]
    assert (epochs[0], epochs[-1]) == (0, 300)
    assert MAX_FRAMES / 2 <= len(epochs) <= MAX_FRAMES + 1
    assert len(set(np.diff(epochs[:-1]))) == 1
    assert film.losses == trainer.history["train_loss"]
    last = film.frames[-1]
    np.testing.assert_array_equal(last.weights[0], trainer.network.weights[0])
    X = gpuprop.datasets.make_xor()[0]
    np.testing.assert_array_equal(last.activations[-1], trainer.network.copy(device="numpy").activations(X)[-1])
    np.testing.assert_allclose(last.activations[-1], trainer.network.forward(X), rtol=1e-5)
    corner = np.array([[film.extent[0], film.extent[3]]])  # the first row is the top
    assert last.boundary is not None
    assert last.boundary[0, 0] == pytest.approx(trainer.network.forward(corner)[0, 0], rel=1e-5)


def test_page_of_an_animation() -> None:
    _, film = xor_film(20)
    page = to_html(film, "a </script><b> title")
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org/2000/svg)", page)
    assert page.count("</script>") == 2
    data = json.loads(re.findall(r'type="application/json">(.*?)</script>', page, re.DOTALL)[0])
    assert data["title"] == "a </script><b> title"
    assert [frame["epoch"] for frame in data["frames"]] == list(range(21))
    pixels = np.frombuffer(base64.b64decode(data["frames"][-1]["boundary"]), np.uint8)
    assert film.frames[-1].boundary is not None
    np.testing.assert_allclose(pixels.reshape(GRID, GRID) / 255, film.frames[-1].boundary, atol=0.5 / 255 + 1e-9)


@needs_chromium
def test_animation_in_a_browser(tmp_path: Path) -> None:
    _, film = xor_film(20)
    measure = "document.title = `${document.documentElement.scrollHeight} ${document.documentElement.scrollWidth}`;"
    text = to_html(film, "xor").replace("slider.value = 0;\nshow();", f"slider.value = 0;\nshow();\n{measure}")
    (tmp_path / "film.html").write_text(text, encoding="utf-8")
    page = dom((tmp_path / "film.html").as_uri(), tmp_path / "profile")
    assert "epoch 0, before training" in page
    network = re.findall(r'<div id="network">(.*?)</div>', page, re.DOTALL)[0]
    assert network.count("<line") == 2 * 3 + 3
    assert network.count("<circle") == 2 + 3 + 1
    height, width = map(int, re.findall(r"<title>(\d+) (\d+)</title>", page)[0])
    assert height <= 800
    assert width <= 1280
    # The plane has names on its axes, a key of its colours, and samples in colours that it does not have.
    field = re.findall(r'<div id="field">(.*?)</div>', page, re.DOTALL)[0]
    assert {">x1<", ">x2<", ">0.5<"} <= set(re.findall(r">[^<]+<", field))
    key, marks = (set(re.findall(rf'<{kind}[^>]*fill="([^"]+)"', field)) for kind in ("rect", "circle"))
    assert len(key) == 30
    assert marks == {"rgb(17,17,17)", "rgb(255,216,77)"}
    small = dom((tmp_path / "film.html").as_uri(), tmp_path / "profile", "500,900")
    assert int(re.findall(r"<title>\d+ (\d+)</title>", small)[0]) <= 500


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    cli = Cli(capsys)
    gif, page = tmp_path / "xor.gif", tmp_path / "xor.html"
    cli.run("train", "xor", "--epochs", 5, "--device", "numpy", "--out", tmp_path / "run", "--animate", gif)
    with Image.open(gif) as picture:
        assert getattr(picture, "n_frames", 1) == 6
    write_film(page, xor_film(3)[1], "xor, 2-3-1")
    assert "<title>xor, 2-3-1" in page.read_text(encoding="utf-8")
    assert not any(SNAPSHOT_FILE in name or ".gpuprop" in name for name in contents(tmp_path))
    before = contents(tmp_path)
    big = cli.fail("train", "digits", "--animate", tmp_path / "x.gif", "--out", tmp_path / "big")
    assert (big.status, "parameters, expected at most 600" in big.err) == (2, True)
    assert (
        "ends in .gif or .html"
        in cli.fail("train", "xor", "--animate", tmp_path / "x.mp4", "--out", tmp_path / "b").err
    )
    assert contents(tmp_path) == before
