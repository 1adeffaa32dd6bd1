"""The files that hold reports: JSON, one document in each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_report", "write_report"]


def write_report(path: Path, document: Mapping[str, Any]) -> None:
    """Write a report; NaN and infinity are errors, since JSON does not have them."""
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_report(path: Path, report_format: str, kind: str) -> dict[str, Any]:
    """Read a report.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a report of this format and kind.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or (document.get("format"), document.get("kind")) != (report_format, kind):
        raise ValueError(f"not a report of gpuprop bench {kind}")
    return document
