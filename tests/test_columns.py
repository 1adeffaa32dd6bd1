"""`Columns` finds kinds, scales numbers by its formulas, copes with gaps and unseen values, and survives JSON."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gpuprop.errors import DataError
from gpuprop.estimators.columns import CellError, Columns

N = 60
RNG = np.random.default_rng(0)


def titanic_like() -> pd.DataFrame:
    """Identifier, boolean text, gaps in a number, text of many values, a nominal column with gaps."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "PassengerId": rng.permutation(N) + 1000,
            "Sex": rng.choice(["male", "female"], N),
            "Age": np.where(np.arange(N) % 5 == 0, np.nan, rng.uniform(1, 80, N)),
            "Name": [f"Passenger {i}" for i in range(N)],
            "Ticket": [["A 5", "PC 17", "C.A."][i % 3] if i % 2 else f"T{i}" for i in range(N)],
            "Cabin": [None if i % 3 else f"C{i}" for i in range(N)],
            "Embarked": [["S", "C", "Q", ""][i % 4] for i in range(N)],
            "Body": [np.nan] * N,
            "Ship": ["Titanic"] * N,
        }
    )


def weather_like() -> pd.DataFrame:
    """Dates as text of two spellings and as datetimes, truth values, durations."""
    n = 150
    days = pd.date_range("2023-01-01", periods=n, freq="7D")
    return pd.DataFrame(
        {
            "date": days.strftime("%Y-%m-%d"),
            "american": days.strftime("%m/%d/%Y"),
            "time": days + pd.to_timedelta(np.arange(n) % 24, unit="h"),
            "rain": np.arange(n) % 3 == 0,
            "sure": ["Yes", "no"] * (n // 2),
            "length": pd.to_timedelta(np.arange(n) % 7, unit="h"),
            "year": np.arange(n) + 1950,
        }
    )


def kinds(columns: Columns) -> dict[str, str]:
    return {row.name: row.kind for row in columns.table()}


def test_the_kinds_of_a_list_of_passengers() -> None:
    found = Columns().fit(titanic_like())
    assert kinds(found) == {
        "PassengerId": "identifier",
        "Sex": "category",
        "Age": "number",
        "Name": "identifier",
        "Ticket": "text",
        "Cabin": "identifier",
        "Embarked": "category",
        "Body": "constant",
        "Ship": "constant",
    }
    missing = {row.name: row.missing for row in found.table()}
    assert missing == dict.fromkeys(missing, 0.0) | {"Age": 0.2, "Cabin": 40 / 60, "Embarked": 0.25, "Body": 1.0}
    assert found.input_names == [
        "Age",
        "Sex=male",
        "Age is missing",
        *[f"Ticket={value}" for value in ("A 5", "C.A.", "PC 17")],
        "Ticket has another value",
        *[f"Embarked={value}" for value in "CQS"],
    ]


def test_the_kinds_of_a_record_of_the_weather() -> None:
    found = Columns().fit(weather_like())
    assert kinds(found) == {
        "date": "date",
        "american": "date",
        "time": "date",
        "rain": "boolean",
        "sure": "boolean",
        "length": "number",
        "year": "number",
    }
    # All days are seven days apart, so that there is no weekday to speak of; only `time` has an hour.
    circles = {name.split(" ")[1] for name in found.input_names if ": " in name}
    assert circles == {"month", "hour"}
    days = (pd.to_datetime(weather_like()["date"]) - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    spread = days.quantile(0.75) - days.quantile(0.25)
    scaled = ((days - days.median()) / spread).to_numpy()
    expected = scaled / np.sqrt(1 + (scaled / 3) ** 2)
    inputs = found.transform(weather_like())
    for name in ("date", "american"):
        np.testing.assert_allclose(inputs[:, found.input_names.index(name)], expected, rtol=1e-6)


def test_seasons_need_a_record_over_time() -> None:
    def circles(days: Any) -> set[str]:
        found = Columns().fit(pd.DataFrame({"day": days, "x": RNG.normal(size=len(days))}))
        return {name.split()[1] for name in found.input_names if ": " in name}

    assert circles(pd.date_range("2020-01-01", periods=800)) == {"month", "weekday"}
    assert circles(pd.date_range("2024-01-01", periods=200)) == {"weekday"}
    assert circles(pd.date_range("2012-01-01", periods=60, freq="MS")) == {"month"}
    births = pd.Timestamp("1960-01-01") + pd.to_timedelta(RNG.integers(0, 15000, 100), unit="D")
    assert circles(births) == set()
    assert circles(pd.date_range("2024-01-01", periods=60, freq="h")) == {"hour"}


def test_the_kinds_of_a_list_of_credits() -> None:
    """The columns of German credit data and of the census: categories, some with gaps of their own spelling."""
    i = np.arange(200)
    frame = pd.DataFrame(
        {
            "sex": np.array(["male", "female"])[i % 2],
            "saving_accounts": np.array(["little", "moderate", "rich", "quite rich", "?"])[i % 5],
            "purpose": np.array([f"purpose {one}" for one in range(8)])[i % 8],
            "occupation": np.array([" Sales", " ?", " Craft-repair"])[i % 3],
            "credit_amount": 250 + 37 * i,
            "job": i % 4,
            "risk": i % 2,
        }
    )
    found = Columns(missing_values=["?"]).fit(frame)
    assert kinds(found) == {
        "sex": "category",
        "saving_accounts": "category",
        "purpose": "category",
        "occupation": "category",
        "credit_amount": "number",
        "job": "number",
        "risk": "number",
    }
    missing = {row.name: row.missing for row in found.table() if row.missing}
    assert missing == {"saving_accounts": 0.2, "occupation": 67 / 200}
    assert len(found.input_names) == 1 + 4 + 8 + 1 + 3
    assert "occupation       category    33.5%  Sales is 1, Craft-repair is -1, a gap is 0" in str(found)


def test_months_weekdays_and_hours_go_in_circles() -> None:
    from gpuprop.estimators.column_kinds import turns

    moments = pd.Series(pd.date_range("2019-12-25 05:30", periods=900, freq="31h"))
    days = ((moments - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)).to_numpy()
    through = (moments.dt.day - 1) / moments.dt.days_in_month
    np.testing.assert_allclose(turns(days, "month"), (moments.dt.month - 1 + through) / 12, atol=1e-12)
    np.testing.assert_allclose(turns(days, "weekday"), [day.weekday() / 7 for day in moments.dt.date], atol=1e-12)
    np.testing.assert_allclose(turns(days, "hour"), (moments.dt.hour + moments.dt.minute / 60) / 24, atol=1e-9)


def test_numbers_are_scaled_by_quartiles_or_else_by_the_range() -> None:
    wide = RNG.normal(size=N) * 1e6
    rare = np.where(np.arange(N) == 7, 5.0, 1.0)  # equal quartiles
    flat = np.full(N, 3.3)
    frame = pd.DataFrame({"wide": wide, "rare": rare, "flat": flat, "gaps": np.where(np.arange(N) % 2, np.nan, wide)})
    found = Columns().fit(frame)
    assert found.input_names == ["wide", "rare", "gaps", "gaps is missing"]
    assert found.layout == (3, 1, ())
    q25, median, q75 = np.quantile(wide, [0.25, 0.5, 0.75])
    z = np.c_[(wide - median) / (q75 - q25), 2 * (rare - 1.0) / 4.0]
    np.testing.assert_allclose(found.transform(frame)[:, :2], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-5, atol=1e-6)
    new = found.transform(pd.DataFrame({"wide": [np.nan, 1e300], "rare": [1, None], "gaps": [np.nan, 0]}))
    np.testing.assert_allclose(new[:, 0], [0.0, 3.0])  # a gap is the median, and what is far outside is 3
    assert (new[0, 3] != new[1, 3]).all()


def test_gaps_get_an_input_if_they_say_something_of_their_own() -> None:
    x, i = RNG.normal(size=N), np.arange(N)
    frame = pd.DataFrame(
        {
            "few": np.where(i < 4, np.nan, x),
            "some": np.where(i < 5, np.nan, x),
            "same": np.where(i < 5, np.nan, x),
            "other": np.where(i < 6, np.nan, x),
        }
    )
    assert Columns().fit(frame).input_names == ["few", "some", "same", "other", "some is missing", "other is missing"]


def test_categories_are_one_hot_and_two_values_share_an_input() -> None:
    frame = pd.DataFrame({"city": ["a", "b", "c", "a"] * 5, "side": ["left", "right", "left", None] * 5})
    found = Columns().fit(frame)
    city, side = found.kinds
    cells = pd.DataFrame({"city": ["b", "d", None, " c "], "side": ["right", "left", None, "up"]})
    from gpuprop.estimators.cells import Missing, read

    none = Missing.of(())
    assert city.encode(read("city", cells["city"], none)).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert side.encode(read("side", cells["side"], none)).tolist() == [[1], [-1], [0], [0]]


def test_a_category_of_numbers_knows_them_in_every_type() -> None:
    frame = pd.DataFrame({"zone": [1, 2, 3, 1] * 5, "x": RNG.normal(size=20)})
    found = Columns(categorical_features=["zone"]).fit(frame)
    floats = frame.astype({"zone": float})
    texts = frame.assign(zone=frame["zone"].astype(str))
    wanted = found.transform(frame)
    for other in (floats, texts, frame.astype({"zone": "category"}), frame.astype({"zone": "Int64"})):
        np.testing.assert_array_equal(found.transform(other), wanted)


def test_categories_of_many_values_become_codes() -> None:
    i = np.arange(120)
    frame = pd.DataFrame(
        {
            "town": np.array([f"t{one}" for one in range(12)])[i % 12],
            "side": np.array(["left", "right", None], dtype=object)[i % 3],
            "word": [f"w{one % 7}" if one % 2 else f"rare {one}" for one in i],
            "x": RNG.normal(size=120),
        }
    )
    found = Columns(most_one_hot=7).fit(frame)
    assert found.input_names == ["x", "side=right", "town", "word"]
    assert found.layout == (1, 1, (13, 9))
    new = frame[:3].assign(town=["t0", "t11", "elsewhere"], word=["w0", "new", None])
    order = sorted(set(frame["town"]))
    assert found.transform(new)[:, 2].tolist() == [order.index("t0") + 1, order.index("t11") + 1, 0]
    assert found.transform(new)[:, 3].tolist() == [1, 8, 0]
    again = Columns.from_plain(json.loads(json.dumps(found.to_plain())))
    assert again.layout == found.layout
    np.testing.assert_array_equal(again.transform(new), found.transform(new))


def test_a_category_knows_its_values_in_a_file_of_digits_only() -> None:
    frame = pd.DataFrame({"zip": ["007", "042", "1A", "1.50"] * 5})
    found = Columns().fit(frame)
    numbers = found.transform(pd.DataFrame({"zip": [7, 42, 1.5, 8]}))
    np.testing.assert_array_equal(numbers[:3], found.transform(pd.DataFrame({"zip": ["007", "042", "1.50"]})))
    np.testing.assert_array_equal(numbers[3:], found.transform(pd.DataFrame({"zip": [None]})))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (pd.cut(pd.Series(np.linspace(0, 1, N)), 4), "category"),
        (pd.Series(pd.date_range("2024-01-01", periods=N, freq="h")).dt.time, "number"),
        (pd.Series(pd.date_range("2024-01-01", periods=N)).dt.date, "date"),
        (pd.Series(pd.date_range("2024-01-01", periods=N, tz="Asia/Tokyo")), "date"),
        (pd.Series(pd.period_range("2024-01", periods=N, freq="M")), "date"),
        (pd.Series(pd.date_range("2024-01-01", periods=N)).astype("timestamp[us][pyarrow]"), "date"),
        (pd.Series(pd.date_range("2024-01-01", periods=N)).dt.date.astype("date32[pyarrow]"), "date"),
        (pd.Series([True, None, False] * (N // 3)), "boolean"),
        (pd.Series([1, None, 3] * (N // 3), dtype="Int8"), "number"),
        (pd.Series([Decimal("1.5"), None, Decimal(2)] * (N // 3)), "number"),
        (pd.Series([Decimal("1.5"), Decimal(2)] * (N // 2)).astype(pd.ArrowDtype(pa.decimal128(9, 2))), "number"),
        (
            pd.Series(["a", "b", None] * (N // 3)).astype(pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
            "category",
        ),
        (pd.Series([b"a", b"b", b"c"] * (N // 3)), "category"),
    ],
)
def test_every_type_of_cell_has_a_kind(cells: Any, kind: str) -> None:
    frame = pd.DataFrame({"cells": cells})
    found = Columns().fit(frame)
    assert kinds(found) == {"cells": kind}
    assert np.isfinite(found.transform(frame)).all()


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category", "string[pyarrow]"])
def test_every_type_of_text_gives_the_same_inputs(dtype: str) -> None:
    frame = titanic_like()[["Sex", "Embarked", "Age"]]
    found = Columns().fit(frame)
    other = frame.astype({"Sex": dtype, "Embarked": dtype})
    np.testing.assert_array_equal(found.transform(other), found.transform(frame))
    np.testing.assert_array_equal(Columns().fit(other).transform(frame), found.transform(frame))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "Int64", "float32", "object", "int64[pyarrow]", "bool"])
def test_every_type_of_number_gives_the_same_inputs(dtype: str) -> None:
    frame = pd.DataFrame({"a": np.arange(N) * 7 % 2, "b": RNG.normal(size=N)})
    found = Columns().fit(frame)
    np.testing.assert_array_equal(found.transform(frame.astype({"a": dtype})), found.transform(frame))


def test_frames_of_other_libraries() -> None:
    frame = titanic_like().drop(columns="Body")
    found = Columns().fit(frame)
    table = pa.Table.from_pandas(frame)
    np.testing.assert_array_equal(found.transform(table), found.transform(frame))
    assert kinds(Columns().fit(table)) == kinds(found)

    class OnlyTheProtocol:
        def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:
            return table.__dataframe__()

    np.testing.assert_array_equal(found.transform(OnlyTheProtocol()), found.transform(frame))


def test_arrays_are_taken_at_their_word() -> None:
    counting = np.c_[np.arange(N), RNG.normal(size=N)]
    assert [row.kind for row in Columns().fit(counting).table()] == ["number", "number"]
    mixed = np.array([[i, "ab"[i % 2], None if i % 3 else 2.5] for i in range(N)], dtype=object)
    assert [row.kind for row in Columns().fit(mixed).table()] == ["number", "category", "number"]
    coded = Columns(categorical_features=[True, False]).fit(np.c_[np.arange(N) % 4, RNG.normal(size=N)])
    assert [row.kind for row in coded.table()] == ["category", "number"]


def test_real_features_are_not_identifiers() -> None:
    frame = pd.DataFrame(
        {
            "income": RNG.permutation(N) * 37 + 20000,  # different whole numbers
            "year": np.arange(N) + 1960,  # they count, but not rows
            "price": RNG.normal(size=N),
            "paid": RNG.permutation(N),
            "id": np.arange(N) + 7,
            "Unnamed: 0": np.arange(N),
            "time": np.arange(N),
            "when": pd.date_range("2024-01-01", periods=N).strftime("%Y-%m-%d"),
        }
    )
    left_out = [name for name, kind in kinds(Columns().fit(frame)).items() if kind == "identifier"]
    assert left_out == ["id", "Unnamed: 0"]
    alone = Columns().fit(frame[["id"]])
    assert kinds(alone) == {"id": "number"}


def test_the_user_knows_better() -> None:
    frame = pd.DataFrame(
        {
            "id": [f"K-{i}" for i in range(N)],
            "zip": np.arange(N) % 5,
            "amount": ["?" if i % 9 == 0 else str(i / 2) for i in range(N)],
            "day": [20240101 + i % 28 for i in range(N)],
            "code": [f"{i % 6}" for i in range(N)],
            "x": np.where(np.arange(N) % 4, RNG.normal(size=N), -999),
        }
    )
    found = Columns(
        categorical_features=["zip"],
        date_features=["day"],
        numeric_features=["code"],
        drop=["id"],
        missing_values=["?", -999],
    ).fit(frame)
    assert [(row.name, row.kind, round(row.missing, 3)) for row in found.table()] == [
        ("id", "left out", 0.0),
        ("zip", "category", 0.0),
        ("amount", "number", round(7 / 60, 3)),
        ("day", "date", 0.0),
        ("code", "number", 0.0),
        ("x", "number", 0.25),
    ]
    first = frame["amount"].replace("?", np.nan).astype(float)
    z = (first - first.median()) / (first.quantile(0.75) - first.quantile(0.25))
    expected = (z / np.sqrt(1 + (z / 3) ** 2)).fillna(0)
    at = found.input_names.index("amount")
    np.testing.assert_allclose(found.transform(frame)[:, at], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ["Agee"]}, "drop: unknown column 'Agee'; did you mean 'Age'"),
        ({"drop": ["Age"], "numeric_features": ["Age"]}, "drop: column 'Age' is also named as a number"),
        ({"categorical_features": [True]}, "categorical_features: got a mask of 1 entries, expected 9"),
        ({"numeric_features": [9]}, "numeric_features: got 9, expected names or positions of the 9 columns"),
        ({"numeric_features": ["Sex"]}, "column 'Sex', row 0 .*got '(fe)?male', expected a number"),
        ({"date_features": ["Embarked"]}, "column 'Embarked', row 0 .*got 'S', expected a date such as 2024-01-31"),
    ],
)
def test_options_that_do_not_fit_the_table(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Columns(**options).fit(titanic_like())


def test_columns_are_found_by_their_names() -> None:
    frame = titanic_like()
    found = Columns().fit(frame)
    other = frame[frame.columns[::-1]].drop(columns=["Name", "PassengerId", "Ship", "Body"]).assign(extra=1)
    np.testing.assert_array_equal(found.transform(other), found.transform(frame))
    with pytest.raises(ValueError, match="X lacks the columns 'Sex', 'Age' "):
        found.transform(frame.drop(columns=["Age", "Sex"]))
    with pytest.raises(ValueError, match="several columns of the name 'Age'"):
        found.transform(pd.concat([frame, frame[["Age"]]], axis=1))
    with pytest.raises(ValueError, match="several columns of the name 'Age'"):
        Columns().fit(pd.concat([frame, frame[["Age"]]], axis=1))
    with pytest.raises(ValueError, match="X has 2 features, but Columns is expecting 9 features"):
        found.transform(np.zeros((3, 2)))


def test_a_wrong_cell_is_named() -> None:
    frame = titanic_like()
    found = Columns().fit(frame)
    wrong = frame.astype({"Age": object})
    wrong.loc[41, "Age"] = "old"
    with pytest.raises(
        CellError, match=r"column 'Age', row 41 \(counted from 0\): got 'old', expected a number"
    ) as caught:
        found.transform(wrong)
    assert caught.value.at("line 43").startswith("column 'Age', line 43: got 'old'")
    assert isinstance(caught.value, DataError)
    wrong.loc[41, "Age"] = np.inf
    with pytest.raises(CellError, match="got inf, expected a finite number"):
        found.transform(wrong)
    wrong.at[41, "Age"] = {"a": 1}
    with pytest.raises(TypeError, match=r"column 'Age', row 41 .*argument must be a string or a number, got dict"):
        found.transform(wrong)
    with pytest.raises(CellError, match="expected a date"):
        Columns().fit(weather_like()).transform(weather_like().assign(date="soon"))


def test_nothing_is_said_twice_about_gaps_that_only_prediction_has() -> None:
    frame = titanic_like()
    found = Columns().fit(frame)
    gone = frame.assign(Sex=None, Age=None, Ticket=None, Embarked="")
    inputs = found.transform(gone)
    assert np.isfinite(inputs).all()
    assert len(np.unique(inputs, axis=0)) == 1


@pytest.mark.parametrize("table", [titanic_like, weather_like])
def test_columns_travel_as_json(table: Any) -> None:
    frame = table()
    found = Columns(missing_values=["?", -1]).fit(frame)
    again = Columns.from_plain(json.loads(json.dumps(found.to_plain(), allow_nan=False)))
    assert again.table() == found.table()
    np.testing.assert_array_equal(again.transform(frame), found.transform(frame))


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: plain["columns"][0].update(kind="program"),
        lambda plain: plain["columns"][1].update(values="ab"),
        lambda plain: plain["columns"][1].update(missing="much"),
        lambda plain: plain["columns"][1].pop("values"),
        lambda plain: plain["center"].pop(),
        lambda plain: plain["factor"].__setitem__(0, float("inf")),
        lambda plain: plain.update(missing_values=[["?"]]),
        lambda plain: plain.pop("named"),
    ],
)
def test_a_damaged_description_is_refused(damage: Any) -> None:
    plain = json.loads(json.dumps(Columns().fit(titanic_like()).to_plain()))
    damage(plain)
    with pytest.raises((TypeError, ValueError, LookupError)):
        Columns.from_plain(plain)


# --- for networks that embed their inputs ----------------------------------------------------------------------------


def test_embedded_inputs_are_numbers_then_others_then_codes() -> None:
    frame = pd.DataFrame(
        {
            "letter": list("abcdefghij") * 4,
            "size": np.arange(40) % 7 + 0.5,
            "grade": ["x", "y", "z", "y"] * 10,
            "day": pd.date_range("2024-01-01", periods=40, freq="9D"),
        }
    )
    frame.loc[3, "letter"] = None
    columns = Columns(most_one_hot=8).fit(frame)
    plain = Columns().fit(frame)
    inputs = columns.transform(frame)
    names = columns.input_names
    assert names[:2] == ["size", "day"]
    assert [name for name in names if name.startswith("grade")] == ["grade=x", "grade=y", "grade=z"]
    # What is not coded is as it is without codes.
    for i, name in enumerate(names[:-1]):
        np.testing.assert_array_equal(inputs[:, i], plain.transform(frame)[:, plain.input_names.index(name)])
    expected = [0 if pd.isna(letter) else 1 + "abcdefghij".index(letter) for letter in frame["letter"]]
    assert inputs[:, -1].tolist() == expected
    assert columns.transform(frame.assign(letter="unseen"))[:, -1].tolist() == [0] * 40
    assert columns.layout == (2, inputs.shape[1] - 3, (11,))
    assert plain.layout[2] == ()
    again = Columns.from_plain(json.loads(json.dumps(columns.to_plain())))
    np.testing.assert_array_equal(again.transform(frame), inputs)
    assert again.layout == columns.layout
