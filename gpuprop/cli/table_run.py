"""``gpuprop train`` on a table: CSV, Parquet and OpenML, with columns of any kind, by the presets for tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpuprop.cli.options import OptionError, parse_list, wrong_options
from gpuprop.errors import DataError

if TYPE_CHECKING:
    from gpuprop.backends import Choice
    from gpuprop.cli.runs import TableRun
    from gpuprop.estimators.columns import Columns
    from gpuprop.training.parts import TableParts
    from gpuprop.training.tabular_presets import TabularPreset, Task

__all__ = ["table_run"]

#: What the options about columns say of them to the reader.
_KINDS = {"categorical": "text", "numeric": "number", "date": "text"}
#: The options that tables do not have, and why.
_NOT_OF_TABLES = {
    "scale": "whose columns are scaled by what they hold",
    "labels": "but a file of labels belongs to IDX images",
    "arrays": "but only NPZ files have arrays",
}
_CLASSIFIERS, _REGRESSIONS = ("categorical_cross_entropy",), ("squared_error", "absolute_error", "huber", "pinball")


def table_run(options: Mapping[str, Any]) -> tuple[TableRun, Choice]:
    """Return the training that the options of ``gpuprop train`` describe, and the device that was chosen for it."""
    from gpuprop.backends import choose, get_ops
    from gpuprop.cli.runs import TableRun
    from gpuprop.estimators.tabular import TabularClassifier, TabularRegressor, inputs_of
    from gpuprop.training.parts import check_columns
    from gpuprop.training.tabular_presets import network_for_table, trainer_for_table

    for name, why in _NOT_OF_TABLES.items():
        if options[name] is not None:
            raise OptionError(f"got --{name} for the table {options['data']}, {why}; leave it out")
    said = {name: list(parse_list(options[name])) for name in ("drop", *_KINDS)}
    parts = _parts(options, {column: kind for name, kind in _KINDS.items() for column in said[name]})
    is_classifier = parts.classes is not None
    with wrong_options():
        chosen = _preset(options, "classification" if is_classifier else "regression")
    columns = _columns(parts, said, parse_list(options["na"]), chosen.most_one_hot)
    if options["test"] is not None:
        check_columns(options["test"], [kind.name for kind in columns.kinds if kind.used], columns.names, parts.test[0])
    _check_storable(parts, columns)
    n_outputs = len(parts.classes or [None])
    with wrong_options():
        # Made as the estimator will make it, so that a wrong option is found here; nothing is trained with it.
        precision, inputs = options["precision"], inputs_of(columns, chosen)
        network = network_for_table(chosen, inputs, n_outputs, device="numpy", precision=precision, emulate=True)
        metrics, monitor = parse_list(options["metric"]), options["monitor"]
        planned = trainer_for_table(
            chosen, network, validation=chosen.validation_fraction or None, metrics=metrics, monitor=monitor
        )
        # In plain NumPy even a short training by these presets takes longer than it takes to load the compiled loops.
        device = choose(options["device"])
        get_ops(device.device).in_precision(precision, emulate=options["emulate"])  # refuses what it lacks
    estimator = (TabularClassifier if is_classifier else TabularRegressor)(
        chosen,
        drop=said["drop"] or None,
        categorical_features=said["categorical"] or None,
        numeric_features=said["numeric"] or None,
        date_features=said["date"] or None,
        missing_values=parse_list(options["na"]),
        random_state=options["seed"],
        device=device.device,
        precision=precision,
        emulate=options["emulate"],
        plan=options["plan"],
        metrics=list(metrics) or None,
        monitor=monitor,
    )
    return TableRun(parts, estimator, columns, planned), device


def _parts(options: Mapping[str, Any], kinds: Mapping[str, str]) -> TableParts:
    """Read the table, and hold out rows to test with, or read these from a file of their own."""
    from gpuprop.training.parts import Source, table_parts

    data, header, na_values = options["data"], options["header"], parse_list(options["na"])
    source = Source(data, options["target"], header=header, na_values=na_values)
    test = None if options["test"] is None else replace(source, data=options["test"], target=None)
    return table_parts(
        source, options["task"], kinds=kinds, test=test, fraction=options["test_fraction"], seed=options["seed"]
    )


def _columns(
    parts: TableParts, said: Mapping[str, list[str]], na_values: tuple[str, ...], most_one_hot: int | None
) -> Columns:
    """Return the columns of the rows to train on, as the estimator will find them."""
    from gpuprop.estimators.columns import CellError, Columns

    frame = parts.train[0]
    with wrong_options():
        columns = Columns(
            drop=said["drop"] or None,
            categorical_features=said["categorical"] or None,
            numeric_features=said["numeric"] or None,
            date_features=said["date"] or None,
            missing_values=na_values,
            most_one_hot=most_one_hot,
        )
        try:
            return columns.fit(frame)
        except CellError as error:
            raise DataError(f"{parts.name}: {error.at(parts.place(frame.index[error.row]))}") from None


def _check_storable(parts: TableParts, columns: Columns) -> None:
    """Refuse a table whose names and categories would not fit into the metadata of a model file."""
    from gpuprop.model import container

    size = container.header_bytes({"columns": columns.to_plain(), "names": columns.names, "classes": parts.classes})
    most = container.MAX_HEADER_BYTES // 4 * 3  # the rest is for everything else
    if size > most:
        raise DataError(
            f"{parts.name}: names and categories take {size:,} bytes of a model file, expected at most {most:,}; leave "
            "columns of long text out with --drop"
        )


def _preset(options: Mapping[str, Any], task: Task) -> TabularPreset:
    """Return the preset with the settings that the options change."""
    from gpuprop.errors import check_integer, check_real
    from gpuprop.maths.losses import get_loss
    from gpuprop.training.tabular_presets import preset

    for name in ("batch_norm", "residual"):
        if options[name]:
            raise OptionError(f"got --{name.replace('_', '-')} for a table, whose presets have no such layers")
    chosen = preset(options["preset"] or "tabular", task)
    patience = 10 if options["patience"] is None else check_integer("patience", options["patience"], 1)
    share = options["validation_fraction"]
    if share is not None:
        check_real("validation_fraction", share, 0.0, 1.0, open_maximum=True)
    loss, allowed = options["loss"], _CLASSIFIERS if task == "classification" else _REGRESSIONS
    if loss is not None and get_loss(loss).name.partition("(")[0] not in allowed:
        raise OptionError(f"got --loss {loss!r} for a {task} on a table, expected {' or '.join(allowed)}")
    activation = options["activation"]
    given = {
        "activation": activation[0] if activation is not None and len(activation) == 1 else activation,
        "learning_rate": options["lr"],
        "early_stopping": patience if options["early_stopping"] else None,
        "validation_fraction": share,
    }
    names = ("hidden", "loss", "optimizer", "schedule", "batch_size", "epochs", "dropout", "l1", "l2")
    if options["optimizer"] is not None and options["lr"] is None:
        chosen = replace(
            chosen, learning_rate=None
        )  # the preset's is Adam's; another optimizer has a default of its own
    return chosen.with_options(**given, **{name: options[name] for name in names})
