"""``gpuprop info``: versions, devices, and what ``auto`` picks and why."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

import typer

from gpuprop.cli.options import Json
from gpuprop.errors import GpupropError

__all__ = ["register"]

_HELP = """Show versions, the devices of this machine, and which of them "auto" picks and why."""

_PACKAGES = (
    "numpy", "scikit-learn", "numba", "numba-cuda", "cupy", "cupy-cuda12x", "cupy-cuda13x", "matplotlib", "pandas",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command ``info``."""
    app.command("info", help=_HELP, short_help="Show versions and devices.")(info)


def info(json: Json = False) -> None:
    """Print versions and devices."""
    from gpuprop.cli.console import print_json, print_table

    found = _found()
    if json:
        print_json(found)
        return
    for name, version in found["versions"].items():
        print(f"{name:<14}{version}")
    print(f"{'platform':<14}{found['platform']}, {found['processors']} processors")
    print()
    rows = [[d["device"], "yes" if d["usable"] else "no", d["reason"]] for d in found["devices"]]
    print_table(("device", "usable", "what it is, or why not"), rows)
    if "NUMBA_ENABLE_CUDASIM=1" in rows[-1][-1]:
        print("A command with --device cuda-sim switches the simulator on itself.")
    print()
    print(found["auto"]["reason"])


def _found() -> dict[str, Any]:
    from gpuprop.backends import availability, choose
    from gpuprop.version import __version__

    try:
        auto: dict[str, str | None] = asdict(choose("auto"))
    except (GpupropError, ValueError) as error:  # GPUPROP_DEVICE may name a device that is not here
        auto = {"device": None, "backend": None, "reason": str(error)}
    versions = {"gpuprop": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [{"device": d.device, "usable": d.usable, "reason": d.reason} for d in availability()],
        "auto": auto,
    }
