"""Make the pictures of these pages anew, each by the command that stands here.

    python docs/pictures.py               # all of them: some ten minutes; ladder.png needs the extra `test`
    python docs/pictures.py xor.gif       # one of them

The tests of the pages assert that every picture has its command here, and run the quick ones.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
LESSONS = (
    "by_hand", "notations", "activations", "softmax", "algorithm", "gradients", "symmetry", "xor", "depth", "digits",
    "optimizers", "convergence", "kernel", "ladder", "tensor_cores",
)  # fmt: skip

#: Picture -> the command that makes it. OUT is the picture, RUN a place for what else comes out; without OUT the
#: run's loss.png is taken.
COMMANDS: dict[str, list[str]] = {
    **{f"lessons/images/{name}.png": [f"../examples/lesson_{name}.py", "--out", "OUT"] for name in LESSONS},
    "lessons/images/optimizers.gif": ["../examples/lesson_optimizers.py", "--animate", "OUT", "--out", "RUN"],
    "lessons/images/worked-example.svg": ["-m", "gpuprop", "diagram", "--weight", "w1", "--out", "OUT"],
    "lessons/images/xor.gif": [
        *("-m", "gpuprop", "train", "xor", "--hidden", "4", "--epochs", "60", "--animate", "OUT", "--out", "RUN"),
    ],
    "images/peers.png": [
        *("-m", "gpuprop", "bench", "peers", "--read", "../benchmarks/results/cpu/xeon.json", "--picture", "OUT"),
    ],
    "images/play.png": ["play_picture.py", "OUT"],  # needs Chromium
    "images/mnist-training.png": ["-m", "gpuprop", "train", "mnist", "--out", "RUN"],
}


def make(picture: str, out: Path | None = None) -> None:
    """Run the command of one picture, and put it where the pages expect it, or at `out`."""
    print(picture, flush=True)
    out = (out or DOCS / picture).resolve()
    with tempfile.TemporaryDirectory() as folder:
        places = {"OUT": str(out), "RUN": f"{folder}/run"}
        words = [places.get(word, word) for word in COMMANDS[picture]]
        subprocess.run([sys.executable, *words], cwd=DOCS, check=True, stdout=subprocess.DEVNULL)
        if "OUT" not in COMMANDS[picture]:
            shutil.copy(f"{folder}/run/loss.png", out)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name in COMMANDS:
        if not wanted or Path(name).name in wanted:
            make(name)
