"""The notebook that runs gpuprop on a hosted GPU: it is one, it parses, and what it types exists."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli_tools import Cli

NOTEBOOK = json.loads((Path(__file__).parent.parent / "examples" / "run_on_gpu.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_notebook_is_one() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert set(cell) == {"id", "cell_type", "metadata", "source"} | (
            {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        )
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "committed without outputs"


def test_notebook_cells_parse() -> None:
    for code in CODE:
        ast.parse("\n".join("pass" if line.startswith("!") else line for line in code.splitlines()))


def test_notebook_commands_and_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    lines = [line.split()[1:] for code in CODE for line in code.splitlines() if line.startswith("!gpuprop ")]
    assert [line[0] for line in lines] == ["info", "selfcheck", "train", "bench", "bench", "bench"]
    for line in lines:
        words = line[: next((i for i, word in enumerate(line) if word.startswith("--")), len(line))]
        command = words[:2] if words[0] == "bench" else words[:1]
        text = cli.run(*command, "--help").out
        assert all(option in text for option in line if option.startswith("--"))
    written = {line[line.index("--report") + 1] for line in lines if "--report" in line}
    assert len(written) == 4
    assert all(name.startswith("gpu-") for name in written)  # the pattern by which the last cell finds them


@pytest.mark.parametrize(
    ("said", "extra"),
    [
        ("| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |", "cu12"),
        ("| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0     |", "cu13"),
        ("| NVIDIA-SMI 590.44  KMD Version: 590.44  CUDA UMD Version: 13.1  |", "cu13"),
    ],
)
def test_notebook_installs_for_the_drivers_cuda(said: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        ran.append(command)
        return type("Done", (), {"stdout": said})

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setenv("GPUPROP_SOURCE", "git+https://example.org/gpuprop")
    install = next(code for code in CODE if "uninstall" in code)
    exec(install, {})
    other = "cupy-cuda12x" if extra == "cu13" else "cupy-cuda13x"
    assert ran[1][-1] == other
    assert ran[2][-1] == f"gpuprop[{extra}] @ git+https://example.org/gpuprop"
