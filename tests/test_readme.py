"""What the README says can be typed in, and works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, replacement = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    exec(replacement, names)
    assert names["MLPClassifier"].__module__.startswith("gpuprop")
    assert names["network"].evaluate(names["X_test"], names["y_test"])[1] > 0.96
    assert (tmp_path / "mnist.safetensors").exists()
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "gpuprop/core/step.py" in links
    # A checkout has them all; a copy of the tests beside an installed wheel has the examples only.
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing or not (ROOT / "LICENSE").exists()


def test_its_commands_exist() -> None:
    from gpuprop.__main__ import main

    commands = set(re.findall(r"^ +gpuprop (\w+)", README, re.MULTILINE))
    assert {"train", "evaluate", "predict", "trace", "gradcheck"} <= commands
    for command in commands:
        assert main([command, "--help"]) == 0


COMMANDS = re.findall(r"^    gpuprop ([^#\n]*[^#\s])", README, re.MULTILINE)

#: What runs in place of a command that needs the network, a GPU or a person.
STAND_INS = {
    "train openml:adult": "train adult.csv --target income --epochs 2 --out gpuprop-adult",
    "selfcheck --report selfcheck.json": "selfcheck --device numpy --quick --report selfcheck.json",
    "bench epoch --device cuda": "bench kernels --device numpy --only forward,update --shape 9x7x5",
    "watch gpuprop-mnist": "runs gpuprop-mnist",  # tests/test_watch.py stops it, too
}


def test_its_commands_run_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpuprop.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    _write_data()
    assert set(STAND_INS) <= set(COMMANDS)
    for command in ["train mnist --epochs 1", *COMMANDS]:
        assert main(shlex.split(STAND_INS.get(command, command))) == 0, command
    capsys.readouterr()
    assert {"predictions.csv", "trace.html", "xor.html", "selfcheck.json"} <= {path.name for path in tmp_path.iterdir()}


def _write_data() -> None:
    """Write the files that the commands name: tables with gaps and text, and images."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(120):
        rooms, built, quarter = rng.integers(1, 6), rng.integers(1900, 2020), rng.choice(["north", "south", ""])
        rows.append(f"{rooms},{built},{quarter},{rooms * 50 + (built - 1900) + rng.integers(0, 9)}")
    text = "\n".join(["rooms,built,quarter,price", *rows]) + "\n"
    Path("table.csv").write_text(text, encoding="utf-8")
    Path("new.csv").write_text("rooms,built,quarter\n3,1975,north\n2,2001,\n", encoding="utf-8")
    people = [
        f"{rng.integers(18, 80)},{rng.choice(['Private', '?'])},{rng.choice(['<=50K', '>50K'])}" for _ in range(90)
    ]
    Path("adult.csv").write_text("\n".join(["age,workclass,income", *people]) + "\n", encoding="utf-8")
    labels = rng.integers(0, 3, 90)
    images = (rng.integers(0, 60, (90, 6, 6)) + 80 * labels[:, None, None]).astype(np.uint8)
    np.savez("images.npz", X=images, y=labels)


SHOWN = re.compile(r"<!-- gpuprop (bench peers .*?) -->\n(.*?)<!-- end -->", re.DOTALL)


def test_tables_of_peers_are_what_their_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuprop.__main__ import main

    if not (ROOT / "benchmarks").exists():
        pytest.skip("only a checkout has the reports that the tables are of")
    monkeypatch.chdir(ROOT)
    shown = SHOWN.findall((ROOT / "docs" / "cpu-speed.md").read_text(encoding="utf-8"))
    assert shown
    for command, text in shown:
        assert main(command.split()) == 0
        assert text == capsys.readouterr().out
