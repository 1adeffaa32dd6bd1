"""What the README says can be typed in, and works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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


SHOWN = re.compile(r"<!-- gpuprop (bench peers .*?) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/cpu-speed.md"])
def test_tables_of_peers_are_what_their_command_prints(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuprop.__main__ import main

    if not (ROOT / "benchmarks").exists():
        pytest.skip("only a checkout has the reports that the tables are of")
    monkeypatch.chdir(ROOT)
    shown = SHOWN.findall((ROOT / page).read_text(encoding="utf-8"))
    assert shown
    for command, text in shown:
        assert main(command.split()) == 0
        assert text == capsys.readouterr().out
