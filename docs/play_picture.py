"""Take the picture of the playground, with XOR in the middle of its training: ``python docs/play_picture.py OUT``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpuprop.learn.play import render, worked_problem, xor_problem

MOMENT = "begin(1); ui.row = 1; byId('row').value = 1; update(260);"
MOMENT += " ui.cursor = null; refresh(); for (let k = 0; k < 30; k++) step(-1);"


def take(out: Path) -> None:
    """Write the picture, which headless Chromium takes, at one and a half times the size of the window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("the picture needs Chromium: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "play.html")
        text = render([worked_problem(), xor_problem()]).replace("</body>", f"<script>{MOMENT}</script></body>")
        page.write_text(text, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        options += ["--window-size=1280,800", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
        options += ["--virtual-time-budget=3000", f"--screenshot={out}", page.as_uri()]
        subprocess.run([chromium, *options], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve())
