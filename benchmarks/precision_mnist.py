"""Train a 784-128-10 network on all of MNIST in each precision and with several seeds, and compare test accuracies.

    python benchmarks/precision_mnist.py --out precision.json [--device cpu] [--seeds 5] [--epochs 10]

All trainings of a seed begin with the same weights and see the same rows in the same order, so that only the roundings
of the operands differ; a CPU emulates them. The report gets each training as soon as it has ended, and another call
with the same file goes on from there. It also holds the largest difference of the training losses from those of
float32 over the epochs, relative to float32's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpuprop
from gpuprop.backends import get_ops
from gpuprop.core.precision import PRECISIONS
from gpuprop.measure import machine
from gpuprop.measure.report_file import write_report

FORMAT = "gpuprop-precision-mnist-1"
BATCH_SIZE, HIDDEN = 128, 128


def train(data: Any, precision: str, seed: int, epochs: int, device: str) -> dict[str, Any]:
    """Train a network, one primitive after the other in every precision, and return its figures."""
    (X, y), (X_test, y_test) = data
    network = gpuprop.Network(
        (784, HIDDEN, 10),
        loss="categorical_cross_entropy",
        seed=seed,
        device=device,
        precision=precision,
        emulate=True,
        input_scaling=gpuprop.InputScaling.divide(255),
    )
    trainer = gpuprop.Trainer(
        network,
        epochs=epochs,
        schedule="one-cycle",
        learning_rate=0.004,
        batch_size=BATCH_SIZE,
        plan="steps" if network.ops.on_host else "auto",
        n_threads=1,
    )
    trainer.fit(X, y)
    loss, accuracy = network.evaluate(X_test, y_test)
    return {
        "precision": precision,
        "seed": seed,
        "test_accuracy": accuracy,
        "test_loss": loss,
        "train_losses": trainer.history["train_loss"],
        "plan": trainer.plan_reason,
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each precision the mean accuracy, and its differences from float32 with the same seeds."""
    plain = {run["seed"]: run for run in runs if run["precision"] == "float32"}
    rows = []
    for precision in PRECISIONS:
        own = [run for run in runs if run["precision"] == precision and run["seed"] in plain]
        if not own:
            continue
        differences = [run["test_accuracy"] - plain[run["seed"]]["test_accuracy"] for run in own]
        losses = [
            np.abs(np.divide(run["train_losses"], plain[run["seed"]]["train_losses"]) - 1).max().item() for run in own
        ]
        rows.append(
            {
                "precision": precision,
                "seeds": len(own),
                "mean_accuracy": float(np.mean([run["test_accuracy"] for run in own])),
                "mean_difference": float(np.mean(differences)),
                "lowest_difference": min(differences),
                "largest_loss_difference": max(losses),
            }
        )
    return rows


def main(out: Path, device: str, seeds: int, epochs: int) -> None:
    document: dict[str, Any] = {
        "format": FORMAT,
        "command": f"python benchmarks/precision_mnist.py --device {device} --seeds {seeds} --epochs {epochs}",
        "machine": machine.describe(get_ops(device)),
        "summary": [],
        "runs": [],
    }
    if out.exists():
        stored = json.loads(out.read_text(encoding="utf-8"))
        if stored.get("command") != document["command"]:
            sys.exit(f"{out} is the report of {stored.get('command')!r}; name another file")
        document["runs"] = stored["runs"]
    runs, data = document["runs"], gpuprop.datasets.load_mnist()
    for precision in ("float32", *reversed(PRECISIONS[1:])):  # what rounds most comes first
        for seed in range(seeds):
            if any(run["seed"] == seed and run["precision"] == precision for run in runs):
                continue
            runs.append(train(data, precision, seed, epochs, device))
            document["summary"] = summary(runs)
            write_report(out, document)
            print(f"seed {seed}, {precision}: test accuracy {runs[-1]['test_accuracy']:.4f}", flush=True)
    print(f"{'precision':10} {'mean accuracy':>13} {'difference':>10} {'lowest':>8} {'loss curve':>10}")
    for row in document["summary"]:
        print(
            f"{row['precision']:10} {row['mean_accuracy']:13.4%} {row['mean_difference']:+10.3%} "
            f"{row['lowest_difference']:+8.2%} {row['largest_loss_difference']:10.1e}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on MNIST in each precision.")
    parser.add_argument("--out", type=Path, required=True, help="the report, a JSON file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
