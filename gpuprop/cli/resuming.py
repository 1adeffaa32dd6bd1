"""``gpuprop train --resume``: the options of a training, kept in its folder, and compared with those that are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.errors import GpupropError

if TYPE_CHECKING:
    from gpuprop.training.run_manifest import StoredRun

__all__ = ["is_done", "options_of", "settings_of", "stored_in"]

_FORMAT = 1
_OF_ONE_CALL = ("out", "overwrite", "animate", "profile", "resume", "communicator")
"""Options that say nothing of what is computed."""
_MAY_CHANGE = ("epochs", "device", "emulate")
_SOURCES = ("data", "labels", "test")
"""Options that may name files."""
_TUPLES = ("hidden", "activation", "dropout")
"""Options whose values are tuples, which JSON does not have."""


def settings_of(options: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return what a run keeps of its options, as JSON values.

    Parameters
    ----------
    options : mapping
        All options of ``gpuprop train``, by their parameters' names.
    device : str
        The device that was chosen, which may not be the one that would be chosen for other epochs.
    """
    from gpuprop.version import __version__

    kept = {name: value for name, value in options.items() if name not in _OF_ONE_CALL}
    places = {name: str(Path(kept[name]).absolute()) for name in _SOURCES if _is_file(kept[name])}
    return {"format": _FORMAT, "gpuprop": __version__, "options": kept | {"device": device}, "places": places}


def stored_in(folder: Path) -> StoredRun:
    """Return the training in a folder that was begun last.

    Raises
    ------
    GpupropError
        If there is none.
    """
    from gpuprop.training.run_manifest import stored_runs

    if not folder.is_dir():
        raise GpupropError(f"{folder}: there is no such folder; --resume takes the --out of a training")
    stored = stored_runs(folder)
    if not stored:
        raise GpupropError(f"{folder}: holds no training that can be resumed; name DATA and --out to begin one")
    if stored[-1].settings.get("format") != _FORMAT or not isinstance(stored[-1].settings.get("options"), dict):
        raise GpupropError(f"{folder}: its training is of another version of gpuprop; resume it with that one")
    return stored[-1]


def options_of(stored: StoredRun, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a stored training, with those that are given now and may differ.

    Raises
    ------
    ResumeError
        If other options are given that are not what they were; the message names each of them.
    """
    from gpuprop.errors import ResumeError

    options, places = dict(stored.settings["options"]), stored.settings.get("places", {})
    for name in _TUPLES:
        if isinstance(options.get(name), list):
            options[name] = tuple(options[name])
    options |= {name: _found(options[name], places[name]) for name in _SOURCES if name in places}
    differences = [
        f"{_spelled(name)} was {_said(options.get(name))} and is {_said(value)}"
        for name, value in given.items()
        if name not in (*_OF_ONE_CALL, *_MAY_CHANGE) and not _same(name, value, options.get(name))
    ]
    differences += [f"{_spelled(name)} is given" for name in ("out", "overwrite") if given.get(name)]
    if differences:
        raise ResumeError(
            f"--resume: {'; '.join(differences)}; leave these out: only --epochs, --device and --emulate may change"
        )
    return options | {name: given[name] for name in _MAY_CHANGE if name in given}


def is_done(stored: StoredRun, options: Mapping[str, Any]) -> bool:
    """Return whether a training has come to its end, and no further epochs are asked for."""
    return stored.complete and bool(options["epochs"] == stored.settings["options"]["epochs"])


def _is_file(value: Any) -> bool:
    return value is not None and Path(value).exists()


def _found(given: str, place: str) -> str:
    """Return the file as it was given if it is found there, else by the place that it had."""
    return given if Path(given).absolute() == Path(place) or not Path(place).exists() else place


def _same(name: str, value: Any, before: Any) -> bool:
    if name in _SOURCES and value is not None and before is not None:
        return value == before or Path(value).absolute() == Path(before).absolute()
    return bool(value == before)


def _spelled(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"


def _said(value: Any) -> str:
    """Return a value as it would be written in a command line."""
    if value is None:
        return "not given"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
