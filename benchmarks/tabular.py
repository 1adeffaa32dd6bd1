"""gpuprop's presets for tables beside RealMLP, scikit-learn, CatBoost and LightGBM, on tables that packages have.

    python benchmarks/tabular.py --report FILE             # hours; a second call goes on where the first one stopped
    python benchmarks/tabular.py --report FILE --tables cars,titanic --contenders gpuprop,sklearn-mlp --seeds 2
    python benchmarks/tabular.py --report FILE --again gpuprop           # forget what this contender has done
    python benchmarks/tabular.py --report FILE --seconds --seeds 2       # keep the errors, time trainings again
    python benchmarks/tabular.py --report FILE --start                   # a fresh process up to its first result
    python benchmarks/tabular.py --read FILE --markdown
    python benchmarks/tabular.py --export FOLDER           # each table's file as it is, and the command that trains

Each table is split once for each seed, with a quarter for testing, and every contender gets the same parts. The error
is the share of wrong classes, or the root mean squared error divided by the standard deviation of the test part's
targets. The seconds are those of `fit`, with whatever it does to the columns; imports come before. Each pair of
contender and table is a process of its own, and the contenders take turns, table by table. gpuprop's presets and
RealMLP choose their best epoch by the same fifth of the training rows. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

from tabular_data import COMPARED, TABLES, Frame, Table, compared_frame

import gpuprop
from gpuprop.backends import get_ops
from gpuprop.cli.console import print_table
from gpuprop.errors import GpupropError
from gpuprop.measure import machine
from gpuprop.measure.bench.documents import REPORT_FORMAT, document, joined_reports
from gpuprop.measure.bench.documents import Table as Shown
from gpuprop.measure.bench.peers.comparison import environment
from gpuprop.measure.bench.peers.tables import markdown
from gpuprop.measure.report_file import read_report, write_report
from gpuprop.training.tabular_presets import PRESETS
from gpuprop.version import __version__

Entry = dict[str, Any]
Predict = Callable[[Frame], Any]

KIND = "tabular"
SMALL = 0.01
"""Added to errors before they are divided by each other, as in the paper of RealMLP: an error may be zero."""
START_TABLE = "penguins"
START_ROUNDS = 3


# --- contenders ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What a contender gets: a frame of numbers and categories with gaps, its targets, and how to train."""

    X: Frame
    y: Any
    is_classification: bool
    seed: int
    threads: int

    @cached_property
    def held_out(self) -> NDArray[np.intp]:
        """The rows by which those choose their best epoch that do so: a fifth, of classes with equal shares."""
        from sklearn.model_selection import train_test_split

        stratify = self.y if self.is_classification else None
        rows = np.arange(len(self.X))
        return np.sort(train_test_split(rows, test_size=0.2, random_state=self.seed, stratify=stratify)[1])

    @property
    def categories(self) -> list[str]:
        """The names of the columns that hold categories."""
        return list(self.X.select_dtypes("category").columns)

    @property
    def numbers(self) -> list[str]:
        """The names of the columns that hold numbers."""
        return list(self.X.select_dtypes("number").columns)


def _gpuprop(preset: str, training: Training) -> Predict:
    estimator = gpuprop.TabularClassifier if training.is_classification else gpuprop.TabularRegressor
    model = estimator(preset=preset, random_state=training.seed, device="cpu", n_threads=training.threads)
    kept, held_out = np.delete(np.arange(len(training.X)), training.held_out), training.held_out
    X, y = training.X, np.asarray(training.y)
    return model.fit(X.iloc[kept], y[kept], X_val=X.iloc[held_out], y_val=y[held_out]).predict


def _realmlp(variant: str, training: Training) -> Predict:
    """Train pytabkit's RealMLP; it takes no gaps in numbers, so the median goes there, which it scales to zero."""
    import pytabkit

    kind = "Classifier" if training.is_classification else "Regressor"
    medians = training.X[training.numbers].median()
    model = getattr(pytabkit, f"RealMLP_{variant}_{kind}")(
        device="cpu", random_state=training.seed, n_threads=training.threads
    )
    X = training.X.fillna(medians)
    model.fit(X, training.y, val_idxs=training.held_out, cat_col_names=training.categories)
    return lambda X: model.predict(X.fillna(medians))


def _sklearn_mlp(training: Training) -> Predict:
    """Train scikit-learn's MLP as its user guide advises: everything scaled, the targets too, and enough iterations."""
    from sklearn.compose import TransformedTargetRegressor, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), training.numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), training.categories),
    )
    options = {"max_iter": 1000, "random_state": training.seed}
    model = (
        make_pipeline(columns, MLPClassifier(**options))
        if training.is_classification
        else TransformedTargetRegressor(make_pipeline(columns, MLPRegressor(**options)), transformer=StandardScaler())
    )
    return model.fit(training.X, training.y).predict


def _sklearn_trees(training: Training) -> Predict:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    estimator = HistGradientBoostingClassifier if training.is_classification else HistGradientBoostingRegressor
    model = estimator(categorical_features="from_dtype", random_state=training.seed)
    return model.fit(training.X, training.y).predict


def _catboost(training: Training) -> Predict:
    import catboost

    estimator = catboost.CatBoostClassifier if training.is_classification else catboost.CatBoostRegressor
    model = estimator(random_seed=training.seed, thread_count=training.threads, verbose=0, allow_writing_files=False)

    def spelled(X: Frame) -> Frame:  # CatBoost wants text in columns of categories, also where there is a gap
        return X.assign(**{name: X[name].astype(object).fillna("").astype(str) for name in training.categories})

    model.fit(spelled(training.X), training.y, cat_features=training.categories)
    return lambda X: model.predict(spelled(X)).ravel()


def _lightgbm(training: Training) -> Predict:
    import lightgbm

    estimator = lightgbm.LGBMClassifier if training.is_classification else lightgbm.LGBMRegressor
    model = estimator(random_state=training.seed, n_jobs=training.threads, verbose=-1)
    plain = {name: f"x{index}" for index, name in enumerate(training.X.columns)}  # it refuses brackets and commas
    model.fit(training.X.rename(columns=plain), training.y)
    return lambda X: model.predict(X.rename(columns=plain))


@dataclass(frozen=True)
class Contender:
    """What tables call it, the package that it needs, its training, and the preset of gpuprop that it is."""

    title: str
    module: str
    fit: Callable[[Training], Predict]
    distribution: str = ""
    preset: str = ""

    @property
    def version(self) -> str:
        return __version__ if self.module == "gpuprop" else metadata.version(self.distribution or self.module)

    def is_here(self) -> bool:
        """Return whether the package is installed, and gpuprop has the estimators and the preset."""
        if self.preset:
            return hasattr(gpuprop, "TabularClassifier") and self.preset in PRESETS
        return util.find_spec(self.module) is not None


CONTENDERS = {
    "gpuprop": Contender("gpuprop, tabular", "gpuprop", partial(_gpuprop, "tabular"), preset="tabular"),
    "gpuprop-large": Contender(
        "gpuprop, tabular-large", "gpuprop", partial(_gpuprop, "tabular-large"), preset="tabular-large"
    ),
    "realmlp-td-s": Contender("RealMLP-TD-S", "pytabkit", partial(_realmlp, "TD_S")),
    "realmlp-td": Contender("RealMLP-TD", "pytabkit", partial(_realmlp, "TD")),
    "sklearn-mlp": Contender("scikit-learn, MLP", "sklearn", _sklearn_mlp, "scikit-learn"),
    "sklearn-trees": Contender("scikit-learn, boosted trees", "sklearn", _sklearn_trees, "scikit-learn"),
    "catboost": Contender("CatBoost", "catboost", _catboost),
    "lightgbm": Contender("LightGBM", "lightgbm", _lightgbm),
}


# --- the process of one contender on one table -----------------------------------------------------------------------


def work(contender: Contender, table: Table, seeds: Sequence[int], threads: int) -> Iterator[Entry]:
    """Yield the result of each seed."""
    from sklearn.model_selection import train_test_split

    warnings.simplefilter("ignore")  # of other libraries, about ends of trainings and about each other
    importlib.import_module(contender.module)
    X, y = compared_frame(table)
    for seed in seeds:
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.25, random_state=seed, stratify=y if table.is_classification else None
        )
        training = Training(X_train, y_train, table.is_classification, seed, threads)
        with redirect_stdout(sys.stderr):
            begin = time.perf_counter()
            predict = contender.fit(training)
            seconds = time.perf_counter() - begin
            error = error_of(np.asarray(predict(X_test)), y_test, table.is_classification)
        if not np.isfinite(error):
            raise GpupropError(f"seed {seed}: the predictions are not finite")
        yield {"seed": seed, "error": error, "seconds": seconds}


def error_of(predictions: Any, y: Any, is_classification: bool) -> float:
    """Return the share of wrong classes, or the root mean squared error divided by the targets' standard deviation."""
    if is_classification:
        return float(np.mean(predictions.astype(str) != y.astype(str)))
    return float(np.sqrt(np.mean((predictions.ravel() - y) ** 2)) / np.std(y))


@dataclass(frozen=True)
class Call:
    """A process that trains one contender on one table."""

    contender: str
    table: str
    threads: int

    def results(self, seeds: Sequence[int], **variables: str) -> Iterator[Entry]:
        """Start the process and yield its results as they come; the first one tells the seconds since the start."""
        arguments = [self.contender, self.table, ",".join(map(str, seeds)), str(self.threads)]
        command = [sys.executable, __file__, "--worker", *arguments]
        variables = environment(self.threads) | variables
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            begin = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=variables) as process:
                for line in process.stdout or ():
                    yield json.loads(line) | {"since_start": time.perf_counter() - begin}
            if process.returncode:
                said.seek(0)
                last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
                raise GpupropError(f"{self.contender} on {self.table}: exit status {process.returncode}: {last}")


# --- the comparison --------------------------------------------------------------------------------------------------


class Comparison:
    """The results so far, which stand in the file of the report after each training."""

    def __init__(self, path: Path | None, again: Sequence[str]) -> None:
        self.path = path
        found = read_report(path, REPORT_FORMAT, KIND)["results"] if path is not None and path.exists() else []
        self.entries: list[Entry] = [entry for entry in found if entry["contender"] not in again]

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self.path is not None:
            write_report(self.path, self.document())

    def document(self) -> dict[str, Any]:
        versions = machine.versions()
        for contender in CONTENDERS.values():
            if util.find_spec(contender.module) is not None:
                versions[contender.distribution or contender.module] = contender.version
        return document(KIND, machine.describe(get_ops("numpy")), self.entries, versions=versions)

    def trainings(self, subject: str, pairs: Sequence[tuple[str, str]], seeds: int, threads: int) -> list[str]:
        """Make the trainings that the report does not hold yet; return a line for each process that failed.

        The subject is "error", or "seconds" if only the times are wanted, of trainings whose errors are known.
        """
        failed = []
        for table, name in pairs:
            done = {entry["seed"] for entry in self.entries if _key(entry) == (subject, name, table)}
            missing = [seed for seed in range(seeds) if seed not in done]
            if not missing:
                continue
            print(f"  {table}: {name} ...", file=sys.stderr, flush=True)
            try:
                for result in Call(name, table, threads).results(missing):
                    kept = {key: result[key] for key in ("seed", "error", "seconds")}
                    self.add(self._entry(subject, name, table, threads) | kept)
            except GpupropError as error:
                failed.append(str(error))
                print(f"  failed: {error}", file=sys.stderr, flush=True)
        return failed

    def starts(self, contenders: Sequence[str], threads: int) -> None:
        """Time fresh processes up to their first predictions, and gpuprop's also with nothing compiled on the disk."""
        for _ in range(START_ROUNDS):
            for name in contenders:
                self._start(name, threads, compiled=True)
        for name in contenders:
            if CONTENDERS[name].module == "gpuprop":
                self._start(name, threads, compiled=False)

    def _start(self, name: str, threads: int, compiled: bool) -> None:
        with tempfile.TemporaryDirectory() as empty:
            variables = {} if compiled else {"NUMBA_CACHE_DIR": empty}
            (result,) = Call(name, START_TABLE, threads).results([0], **variables)
        entry = self._entry("start", name, START_TABLE, threads)
        self.add(entry | {"seconds": result["since_start"], "compiled_before": compiled})

    def _entry(self, subject: str, name: str, table: str, threads: int) -> Entry:
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        of = {"subject": subject, "contender": name, "table": table, "threads": threads}
        return of | {"version": CONTENDERS[name].version, "load": load}


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry["subject"], entry["contender"], entry["table"]


# --- tables ----------------------------------------------------------------------------------------------------------


class Results:
    """The errors and seconds of the tables and seeds that all of the wanted contenders have done."""

    def __init__(self, entries: Sequence[Entry], contenders: Sequence[str], tables: Sequence[str]) -> None:
        of: dict[tuple[str, str], dict[int, Entry]] = {}
        timed: dict[tuple[str, str], list[float]] = {}
        for entry in entries:
            subject, name, table = _key(entry)
            if subject == "seconds":
                timed.setdefault((table, name), []).append(entry["seconds"])
            elif subject == "error" and name in contenders and table in tables:
                of.setdefault((table, name), {})[entry["seed"]] = entry
        self.contenders = [name for name in contenders if any(name == found for _, found in of)]
        self.seeds = {
            table: sorted(set.intersection(*(set(of.get((table, name), ())) for name in self.contenders)))
            for table in tables
            if self.contenders
        }
        self.tables = [table for table in tables if self.seeds.get(table)]
        shape = (len(self.tables), len(self.contenders))
        self.errors, self.noise, self.seconds = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for i, table in enumerate(self.tables):
            for j, name in enumerate(self.contenders):
                found = [of[table, name][seed] for seed in self.seeds[table]]
                errors = [entry["error"] for entry in found]
                self.errors[i, j] = np.mean(errors)
                self.noise[i, j] = np.std(errors, ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.nan
                self.seconds[i, j] = statistics.median(
                    timed.get((table, name)) or [entry["seconds"] for entry in found]
                )

    def column(self, name: str) -> int | None:
        return self.contenders.index(name) if name in self.contenders else None


def error_table(results: Results) -> Shown:
    rows = []
    for table, errors, noise in zip(results.tables, results.errors, results.noise, strict=True):
        best = errors.min()
        cells = [
            (f"**{error:.3f}**" if error == best else f"{error:.3f}") + ("" if np.isnan(n) else f" ± {n:.3f}")
            for error, n in zip(errors, noise, strict=True)
        ]
        kind = "classes" if TABLES[table].is_classification else "number"
        rows.append([table, f"{kind}, {len(results.seeds[table])} seeds", *cells])
    return _shown(("error", "target", *_titles(results)), rows, 2)


def seconds_table(results: Results) -> Shown:
    rows = [
        [table, *(f"{value:.2f}" for value in seconds)]
        for table, seconds in zip(results.tables, results.seconds, strict=True)
    ]
    return _shown(("seconds of training", *_titles(results)), rows, 1)


def summary_table(results: Results) -> Shown:
    """Compare the contenders over all tables, relative to RealMLP-TD-S where it is there, else to the first one."""
    from scipy.stats import rankdata

    ranks = rankdata(results.errors, axis=1)
    reference = results.column("realmlp-td-s")
    reference = 0 if reference is None else reference
    mlp = results.column("sklearn-mlp")
    rows = []
    for j, name in enumerate(results.contenders):
        ratios = np.log((results.errors[:, j] + SMALL) / (results.errors[:, reference] + SMALL))
        spread = f" ± {ratios.std(ddof=1) / np.sqrt(len(ratios)):.1%}" if len(ratios) > 1 else ""
        times = np.exp(np.mean(np.log(results.seconds[:, j] / results.seconds[:, reference])))
        wins = "-" if mlp in (None, j) else f"{np.sum(ranks[:, j] < ranks[:, mlp])} of {len(ranks)}"
        relative = "0" if j == reference else f"{np.expm1(ratios.mean()):+.1%}{spread}"
        rows.append([CONTENDERS[name].title, f"{ranks[:, j].mean():.2f}", relative, f"{times:.3f}", wins])
    of = CONTENDERS[results.contenders[reference]].title
    headers = ("over all tables", "mean rank", f"error relative to {of}", f"seconds, times {of}", "better than the MLP")
    return _shown(headers, rows, 1)


def start_table(entries: Sequence[Entry]) -> Shown | None:
    """Return the seconds of fresh processes, None if there are none."""
    seconds: dict[tuple[str, bool], list[float]] = {}
    for entry in entries:
        if entry["subject"] == "start":
            seconds.setdefault((entry["contender"], entry["compiled_before"]), []).append(entry["seconds"])
    rows = [
        [CONTENDERS[name].title + ("" if compiled else ", nothing compiled before"), f"{statistics.median(found):.1f}"]
        for (name, compiled), found in sorted(seconds.items(), key=lambda item: list(CONTENDERS).index(item[0][0]))
    ]
    return _shown((f"{START_TABLE}, a fresh process", "seconds to the predictions"), rows, 1) if rows else None


def _titles(results: Results) -> list[str]:
    return [CONTENDERS[name].title for name in results.contenders]


def _shown(headers: Sequence[str], rows: list[list[str]], first_number: int) -> Shown:
    return tuple(headers), rows, tuple(range(first_number, len(headers)))


def show(report: dict[str, Any], contenders: Sequence[str], tables: Sequence[str], as_markdown: bool) -> None:
    versions = [f"{name} {version}" for name, version in report["versions"].items() if name != "platform"]
    print(f"{report['device']['name']}, {report['device']['processors']} processors; {', '.join(versions)}\n")
    results = Results(report["results"], contenders, tables)
    found = [error_table(results), summary_table(results), seconds_table(results)] if results.tables else []
    starts = start_table([entry for entry in report["results"] if entry["contender"] in contenders])
    for table in found + ([starts] if starts else []):
        if as_markdown:
            print(markdown(table))
        else:
            print_table(*table)
            print()


# --- the command -----------------------------------------------------------------------------------------------------


def export(folder: Path) -> None:
    """Write each table that is here as CSV, and print how it is trained."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        if not table.is_here():
            print(f"{name}: not installed: {table.package}", file=sys.stderr)
            continue
        path = folder / f"{name}.csv"
        if table.path is not None and table.path.suffix == ".csv":
            shutil.copyfile(table.path, path)
        else:
            table.load().to_csv(path, index=False)
        print(shlex.join(["gpuprop", "train", str(path), "--target", table.target]))


def _named(option: str, text: str | None, known: Sequence[str], usual: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(usual)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise GpupropError(f"{option}: got {', '.join(unknown)}, expected some of {', '.join(known)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", metavar="NAMES", help=f"default: those that are here of {', '.join(COMPARED)}")
    parser.add_argument(
        "--contenders", metavar="NAMES", help=f"default: those that are here of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, metavar="FILE", help="keep the results there; what stands there is done")
    parser.add_argument("--again", metavar="NAMES", help="contenders whose results in the report are forgotten first")
    parser.add_argument("--seconds", action="store_true", help="keep the errors, and only time trainings again")
    parser.add_argument("--start", action="store_true", help="time fresh processes instead")
    parser.add_argument(
        "--read", type=Path, action="append", metavar="FILE", help="only show the results in a report; may be repeated"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="only write the tables as CSV")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit status."""
    if options.export is not None:
        export(options.export)
        return 0
    if options.worker is not None:
        contender, table, seeds, threads = options.worker
        for result in work(
            CONTENDERS[contender], TABLES[table], [int(seed) for seed in seeds.split(",")], int(threads)
        ):
            print(json.dumps(result), flush=True)
        return 0
    if options.read is not None:
        report = joined_reports(options.read, KIND)
        contenders = _named("--contenders", options.contenders, list(CONTENDERS), list(CONTENDERS))
        show(report, contenders, _named("--tables", options.tables, list(TABLES), COMPARED), options.markdown)
        return 0
    here = [name for name, contender in CONTENDERS.items() if contender.is_here()]
    print(f"not installed: {', '.join(sorted(set(CONTENDERS) - set(here))) or 'nobody'}", file=sys.stderr)
    contenders = _named("--contenders", options.contenders, list(CONTENDERS), here)
    tables = _named("--tables", options.tables, list(TABLES), [name for name in COMPARED if TABLES[name].is_here()])
    comparison = Comparison(options.report, _named("--again", options.again, list(CONTENDERS), ()))
    failed = []
    if options.start:
        comparison.starts(contenders, options.threads)
    else:
        subject = "seconds" if options.seconds else "error"
        pairs = [(table, name) for table in tables for name in contenders]
        failed = comparison.trainings(subject, pairs, options.seeds, options.threads)
    show(comparison.document(), contenders, tables, options.markdown)
    return 1 if failed else 0


def main() -> int:
    try:
        return run(_parser().parse_args())
    except (GpupropError, OSError, ValueError) as error:
        print(f"tabular: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
