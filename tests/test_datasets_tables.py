"""Tables as others write them are read: each test writes a file and knows the values that the reader must find."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuprop import datasets
from gpuprop.datasets import checks, read_table
from gpuprop.errors import DataError

X = np.random.default_rng(0).normal(size=(60, 3)).round(3)
KIND = np.where(X[:, 0] > 0, "oak", "pine")
LINES = [f"{a},{b},{c},{k}" for (a, b, c), k in zip(X, KIND, strict=True)]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refused(path: Path | str, message: str, **options: Any) -> None:
    """Assert that the table is refused in one line that begins with the source."""
    with pytest.raises(DataError) as caught:
        read_table(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert re.search(message, text), text


def assert_trees(table: datasets.RawTable, names: list[str] | None = None) -> None:
    """Assert that a table is the one of `LINES`, no row and no label lost."""
    np.testing.assert_array_equal(table.frame.to_numpy(), X[:, : table.frame.shape[1]])
    assert table.target is not None
    assert table.target.tolist() == KIND.tolist()
    assert list(table.frame.columns) == (names or ["column 1", "column 2", "column 3"])
    assert table.names_known == (names is not None)


# How fields are separated


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "  ", ", "])
@pytest.mark.parametrize("names", [["a", "b", "c", "kind"], None])
def test_separators(tmp_path: Path, separator: str, names: list[str] | None) -> None:
    lines = [*([",".join(names)] if names else []), *LINES]
    table = read_table(written(tmp_path / "a.data", *(line.replace(",", separator) for line in lines)))
    assert_trees(table, names and names[:3])
    assert table.target_name == ("kind" if names else "column 4")


def test_separators_within_quotes(tmp_path: Path) -> None:
    lines = [f'{a};{b};"{k}"' for (a, b, _), k in zip(X, KIND, strict=True)]
    path = written(tmp_path / "a.csv", '"length, mm";"width, mm";kind', *lines)
    assert_trees(read_table(path), ["length, mm", "width, mm"])
    path = written(tmp_path / "b.csv", "name,place,y", *(f'"tree; {k}","x|y",{i}' for i, k in enumerate(KIND)))
    assert read_table(path).frame["name"].tolist() == [f"tree; {k}" for k in KIND]


@pytest.mark.parametrize("said", ["sep=;", '"sep=;"', "SEP=;"])
def test_excel_says_the_separator(tmp_path: Path, said: str) -> None:
    lines = [line.replace(",", ";") for line in ["a,b,c,kind", *LINES]]
    assert_trees(read_table(written(tmp_path / "a.csv", said, *lines)), ["a", "b", "c"])


@pytest.mark.parametrize("ends", ["all lines", "rows"])
def test_a_separator_at_the_end_of_lines(tmp_path: Path, ends: str) -> None:
    header = "a,b,c,kind" + ("," if ends == "all lines" else "")
    table = read_table(written(tmp_path / "a.csv", header, *(line + "," for line in LINES)))
    assert_trees(table, ["a", "b", "c"])
    assert "Column 5 of 5 has neither a name nor values and was left out." in table.notes
    assert_trees(read_table(written(tmp_path / "b.csv", *(line + "," for line in LINES))))


def test_aligned_columns_as_numpy_and_r_write_them(tmp_path: Path) -> None:
    stream = io.StringIO()
    np.savetxt(stream, X, header="a b y")
    table = read_table(written(tmp_path / "a.txt", stream.getvalue()))
    assert (list(table.frame.columns), table.target_name) == (["a", "b"], "y")
    np.testing.assert_allclose(table.frame.to_numpy(), X[:, :2], rtol=1e-15)
    lines = [f'"{i + 1}" {line.replace(",", " ")}' for i, line in enumerate(LINES)]
    table = read_table(written(tmp_path / "b.txt", '"a" "b" "c" "kind"', *lines))  # R's names of rows have no name
    assert_trees(table, ["a", "b", "c"])


def test_the_index_of_a_data_frame_is_no_feature(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "kind": KIND})
    frame.to_csv(tmp_path / "a.csv")
    table = read_table(tmp_path / "a.csv")
    assert_trees(table, ["a", "b"])
    assert any("numbers the rows" in note for note in table.notes)
    frame.set_axis([f"t{i}" for i in range(60)]).to_csv(tmp_path / "b.csv")
    assert read_table(tmp_path / "b.csv").frame["Unnamed: 0"].tolist() == [f"t{i}" for i in range(60)]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz", "a.csv.zip", "a.csv", "a.zip"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, "zip"])
def test_compression_is_seen_from_the_bytes(tmp_path: Path, name: str, pack: Any) -> None:
    text = "\n".join(["a,b,c,kind", *LINES]).encode()
    path = tmp_path / name
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/iris.csv", text)
            archive.writestr("__MACOSX/iris.csv", b"clutter")
    elif name == "a.zip":
        return  # only an archive tells what it holds
    else:
        path.write_bytes(pack(text))
    assert_trees(read_table(path), ["a", "b", "c"])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_compression(tmp_path: Path, pack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack("\n".join(["a,b,c,kind", *LINES]).encode())
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed[:-12])
    refused(path, r"holds damaged (gzip|bzip2|xz) data \(.*\); get the file again")
    path.write_bytes(packed[:20] + b"\0\1" * 8 + packed[36:])
    refused(path, "holds damaged|is not a valid CSV file|expected UTF-8|fields, expected")
    path.write_bytes(pack(b"a,b\n" + b"1,2\n" * 10_000))
    monkeypatch.setattr(checks, "physical_memory", lambda: 5_000)
    refused(path, "expected at most this machine's 5000 bytes")  # 40,004 bytes come out of a few


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv.zst", b"\x28\xb5\x2f\xfd", r"compressed with zstd, which needs: pip install zstandard"),
        ("a.csv", b"<!DOCTYPE html>\n<html>", r"is a web page, not the data; download the file itself"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of Git LFS, not the data"),
        ("a.csv", b'{"a": 1}\n', r"is JSON; save the table as CSV"),
        ("a.csv", b"@relation iris\n", r"is an ARFF file"),
        ("a.csv", b"PAR1\xff", r"it is a Parquet file; name it with the ending \.parquet"),
        ("a.parquet", b"<!DOCTYPE html>", r"got no PAR1 at offset 0, .*; it is a web page, not the data"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), r"it is UTF-16; save it as CSV UTF-8"),
        ("a.csv", b"a:b\n1:2\n2:3\n", r"got 1 column.*; fields stand between commas, semicolons, tabs, bars"),
        ("a.csv", b'a,b\n1,"x\n2,y\n', r"a quotation mark is not closed, in row 1 of the data"),
        ("a.csv", b"sep=;\n", r"holds only the line 'sep=;'"),
        ("a.csv", b"a,b\n1,2,5\n2,3,6\n", r"line 2 has 3 fields, expected 2, as line 1 has; a name is missing there"),
        ("a.csv", b"a,b,c\n1,2,3\n1,2\n", r"line 3 has 2 fields, expected 3, .*\(between commas\)"),
        ("a.csv", b"a,b,a\n1,2,3\n", r"got several columns named 'a', expected distinct names"),
        ("a.xlsx", b"PK\3\4", r"unknown kind '\.xlsx'.*; save the sheet as CSV UTF-8"),
        ("a.gz", b"\x1f\x8b", r"unknown kind '\.gz'.*, such as a\.csv\.gz"),
        ("a.npz", b"PK\3\4", r"holds no table with columns; expected \.csv"),
    ],
)
def test_hints_say_what_is_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_built_in_data_are_no_table() -> None:
    refused("mnist", "holds no table with columns")


def test_archives_that_hold_no_table(tmp_path: Path) -> None:
    for names, message in (
        (["a.csv", "b.csv"], r"is a zip archive of the files 'a\.csv', 'b\.csv', expected one"),
        (["X.npy", "y.npy"], r"is an NPZ file; name it with the ending \.npz"),
        (["[Content_Types].xml", "xl/workbook.xml"], r"is a spreadsheet or another office file; save the sheet as CSV"),
    ):
        with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
            for name in names:
                archive.writestr(name, "a,b\n1,2\n")
        refused(tmp_path / "a.csv", message)


# Whether line 1 holds names


def numbers(*names: str) -> list[str]:
    return [",".join(names), *(f"{a},{b},{c}" for a, b, c in X)]


@pytest.mark.parametrize(
    ("lines", "options", "names"),
    [
        # A line of names that are numbers.
        (["400,405,410,species", *LINES], {"target": "species"}, ["400", "405", "410", "species"]),
        (["400,405,410,species", *LINES], {}, ["400", "405", "410", "species"]),
        (["400.5,401.0,401.5,kind", *LINES], {"target": "kind"}, ["400.5", "401.0", "401.5", "kind"]),
        (numbers("2020", "2021", "2022"), {"target": "2022"}, ["2020", "2021", "2022"]),
        (numbers("2020", "2021", "2022"), {}, ["2020", "2021", "2022"]),
        ([*numbers("0", "1", "2")], {}, ["0", "1", "2"]),
        (
            ["2019,2020,2021", *(f"{i},{i % 7},{i % 5}" for i in range(40))],
            {"target": "2021"},
            ["2019", "2020", "2021"],
        ),
        (["label,0,1", *(f"{i % 2},{i % 5},{i % 3}" for i in range(40))], {}, ["label", "0", "1"]),
        (["class,cap,ring", *("pxs"[i % 2] + ",x,s" for i in range(40))], {}, ["class", "cap", "ring"]),
        # A first row without names: its label comes again, or its numbers have fractions like those below.
        (LINES, {}, None),
        ([f"{a},{b},{'A7B3'[i % 4]}" for i, (a, b, _) in enumerate(X)], {}, None),
        (["p,x,s", "e,x,s", "p,b,s", "e,b,s"], {}, None),
        ([f"2024-01-{i % 28 + 1:02d},{i % 4},{i * 10}" for i in range(60)], {}, None),
        ([f"K-{i},{i % 4},{i * 10}" for i in range(60)], {}, None),
        (["5.1,?,0", *(f"{a},{b},{i % 2}" for i, (a, b, _) in enumerate(X))], {"na_values": ["?"]}, None),
        (["1,2,3"], {"columns": ["a", "b"]}, None),
        # What is known decides.
        (numbers("1", "2", "3"), {"header": False}, None),
        (["1,2,3", "4,5,6"], {"header": True}, ["1", "2", "3"]),
        (["1,2,3", "4,5,6"], {"columns": ["1", "2"]}, ["1", "2", "3"]),
        (["b,a,y", "x,y,z", "y,x,w"], {"columns": ["a", "b"]}, ["b", "a", "y"]),
        (["1,2,3", "4,5,6", "7,8,9"], {"columns": ["a", "b"]}, None),
    ],
)
def test_line_1_is_names_or_a_row(
    tmp_path: Path, lines: list[str], options: dict[str, Any], names: list[str] | None
) -> None:
    table = read_table(written(tmp_path / "a.csv", *lines), **options)
    assert table.names_known == (names is not None)
    assert len(table.frame) == len(lines) - (names is not None)  # no row is lost
    if names is not None:
        assert {*table.frame.columns, table.target_name} == set(names)
    is_known = "header" in options or "target" in options or (names and "columns" in options)
    noted = any(note.startswith("Line 1 was taken for") for note in table.notes)
    assert noted or is_known or options.get("columns") == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ([f"{a},{b},{'unknown' if i == 0 else i % 3}" for i, (a, b, _) in enumerate(X)], {}),
        ([f"{i % 5},{i % 7},{'unknown' if i == 3 else i % 3}" for i in range(3, 60)], {}),
        (["2019,2020,2021", *(f"{i},{i % 7},{i % 5}" for i in range(40))], {}),
        (["land,1990,1995", *(f"l{chr(97 + i)},{i},{i % 7}" for i in range(26))], {}),
        ([f"{i},{i % 9},{'rare' if i == 12 else 'ab'[i % 2]}" for i in range(12, 60)], {}),
    ],
)
def test_what_cannot_be_known_is_refused(tmp_path: Path, lines: list[str], options: dict[str, Any]) -> None:
    path = written(tmp_path / "a.csv", *lines)
    first = ", ".join(repr(field) for field in lines[0].split(","))
    refused(path, rf"line 1 holds {first}, which may be names or a row .*--header or --no-header", **options)
    if len(set(lines[0].split(","))) == 3:
        assert len(read_table(path, header=True).frame) == len(lines) - 1
    if "unknown" not in lines[0]:
        assert len(read_table(path, header=False).frame) == len(lines)


def test_an_unknown_target(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "height,width,kind", "1,2,oak", "2,3,pine")
    refused(path, r"has no column 'knd'; did you mean 'kind'\? \(columns: 'height', 'width', 'kind'\)", target="knd")
    refused(path, r"has no column '2023', and that is no index of its 3 columns", target="2023")
    path = written(tmp_path / "b.csv", *LINES)
    refused(
        path, r"no names: line 1 was taken for a row, '0\.126'.*; give the target's index .*--header", target="kind"
    )


@pytest.mark.parametrize(
    ("header", "target", "guessed"),
    [
        ("a,b,c,d", "d", True),
        ("Label,a,b,c", "Label", False),
        ("a,y,b,c", "y", False),
        ("a,target,class,d", "d", True),  # two may be meant
    ],
)
def test_the_target_is_named_or_guessed(tmp_path: Path, header: str, target: str, guessed: bool) -> None:
    table = read_table(written(tmp_path / "a.csv", header, *(f"{i},{i % 2},{i % 3},{i % 5}" for i in range(20))))
    assert (table.target_name, table.target_guessed) == (target, guessed)
    assert any("was taken for the target" in note for note in table.notes) == guessed


# Files for a model that exists


def test_other_names_than_the_models_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "1,2,3", *(f"{a},{b},{c}" for a, b, c in X[:5]))
    with pytest.raises(
        DataError, match=r"has no column '0'.* \(columns of the file: '1', '2', '3'; of the model: '0', '1', '2'\)"
    ):
        datasets.load_features(path, feature_names=["0", "1", "2"], target="label")
    table = read_table(path, columns=["0", "1", "2"], with_target=False)
    assert (list(table.frame.columns), len(table.frame)) == (["1", "2", "3"], 5)


def test_columns_without_names_take_those_of_a_model(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "0.5,1,oak", "0.6,2,pine")
    table = read_table(path, columns=["a", "b"])
    assert (table.frame.to_dict("list"), table.target_name) == ({"a": [0.5, 0.6], "b": [1, 2]}, "column 3")
    refused(
        path, r"got 3 columns without names, expected the 2 of the model: 'a', 'b'", columns="ab", with_target=False
    )
    places: dict[str, Any] = {
        "columns": ["column 2", "column 3"],
        "target": "column 1",
    }  # a model of a file without names
    for with_target in (True, False):
        table = read_table(path, with_target=with_target, **places)
        assert table.frame.to_dict("list") == {"column 2": [1, 2], "column 3": ["oak", "pine"]}
    table = read_table(written(tmp_path / "b.csv", "1,oak", "2,pine"), with_target=False, **places)
    assert table.frame.to_dict("list") == {"column 2": [1, 2], "column 3": ["oak", "pine"]}


def test_a_later_file_is_read_as_the_first_was(tmp_path: Path) -> None:
    """A part of the rows may read as numbers or bools where all of them were text."""
    train = written(tmp_path / "a.csv", "zip,flag,ok", "01,TRUE,TRUE", "02,x,FALSE", "1A,FALSE,UNKNOWN")
    test = written(tmp_path / "b.csv", "zip,flag,ok", "01,TRUE,TRUE", "02,FALSE,FALSE")
    table = read_table(train, target="ok")
    kinds = dict.fromkeys(table.frame.columns, "text")
    later = read_table(test, target="ok", columns=list(kinds), kinds=kinds)
    assert later.frame.to_dict("list") == {"zip": ["01", "02"], "flag": ["TRUE", "FALSE"]}
    assert table.target is not None
    assert later.target is not None
    _, classes = datasets.encode_target("a", table.target.to_numpy())
    assert classes == ["FALSE", "TRUE", "UNKNOWN"]
    assert datasets.encode_like("b", later.target.to_numpy(), classes).tolist() == [1, 0]
    path = written(tmp_path / "c.csv", "zip,flag,ok", "01,1,TRUE", "02,oops,TRUE")
    refused(
        path,
        r"line 3, column 'flag': got 'oops', expected a number; .*--na 'oops'",
        target="ok",
        kinds={"flag": "number"},
    )


# Numbers as people write them


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["2,5", "3", "-0,25"], [2.5, 3, -0.25]),
        (["1.234,5", "2", "1.000.000"], [1234.5, 2, 1e6]),
        (["1,234.5", "2", "1,000,000"], [1234.5, 2, 1e6]),
        (["1 234,5", "2", "10 000"], [1234.5, 2, 1e4]),
        (["1\u00a0234", "2", "10\u202f000"], [1234, 2, 1e4]),
        (["1'234.5", "2", "10'000"], [1234.5, 2, 1e4]),
        (["$1,200", "$2,450.50", "-$990"], [1200, 2450.5, -990]),
        (["1.200,50 €", "990 €", "5 €"], [1200.5, 990, 5]),
        (["EUR 12", "EUR 13.5", "EUR 1,000"], [12, 13.5, 1000]),
        (["12%", "7.5 %", "100%"], [12, 7.5, 100]),
        (["1e3", "2.5E-1", "+4"], [1000, 0.25, 4]),
    ],
)
def test_numbers_with_marks(tmp_path: Path, cells: list[str], numbers: list[float]) -> None:
    path = written(tmp_path / "a.csv", "a;b;y", *(f"{i};{cell};{'uv'[i % 2]}" for i, cell in enumerate(cells)), "3;;u")
    table = read_table(path)
    np.testing.assert_array_equal(table.frame["b"], [*numbers, np.nan])
    marked = cells[0] not in ("1e3",)
    assert any(note.startswith(f"Column 'b' was read as numbers: {cells[0]!r} is") for note in table.notes) == marked
    target = read_table(path, target="b")
    assert target.target is not None
    if marked:  # amounts are numbers, however few they are
        assert target.task == "regression"
        np.testing.assert_array_equal(target.target, [*numbers, np.nan])


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["a,p,y", '1,"1,200",x', '2,"2,300",y'], 1200.0),  # quoted: commas cannot be decimal marks there by chance
        (["a;p;y", "1,5;1,200;x", "2,5;2,300;y"], 1.2),  # decimal commas elsewhere
        (["a;p;y", "1.5;1,200;x", "2.5;2,300;y"], 1200.0),  # decimal points elsewhere
        (["a;p;y", "1,5;1.200;x", "2,5;2.300;y"], 1200.0),  # which pandas reads as 1.2
        (["a;p;y", "1;1.200;x", "2;2.300;y"], 1.2),
    ],
)
def test_the_rest_of_the_file_tells_an_ambiguous_mark(tmp_path: Path, lines: list[str], value: float) -> None:
    assert read_table(written(tmp_path / "a.csv", *lines)).frame["p"].iloc[0] == value


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a;p;y", "1;1,200;x", "2;2,300;y"], r"line 2, column 'p': the mark in '1,200' may stand before decimals or"),
        (["a;p;y", "1;$5;x", "2;€7;y", "3;$6;y"], r"line 3, column 'p': got '€7', but '\$5' in line 2; write"),
        (["a;p;y", "1;1,5;x", "2;2.5;y", "3;3,5;y"], r"line 3, column 'p': got '2\.5', but '1,5' in line 2"),
        (
            ["p,y", *(f"{i}.5,{i % 2}" for i in range(40)), "oops,1"],
            r"line 42, column 'p': got 'oops', expected a number, as",
        ),
        (["p,y", *(f"{i % 3},{i % 2}" for i in range(40)), "?,1"], r"line 42.*--na '\?'.*--categorical 'p'"),
        (["p,y", "1,x", "inf,y"], r"line 3, column 'p': got inf, expected a finite number"),
    ],
)
def test_columns_that_do_not_agree_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    refused(written(tmp_path / "a.csv", *lines), message)


def test_text_stays_text(tmp_path: Path) -> None:
    lines = ["a,b,c,d,y", "3+,A-1,TRUE,2024-01-05,1", "0,17,,2024-02-06,2", "1,x,FALSE,,1"] * 1
    frame = read_table(written(tmp_path / "a.csv", *lines)).frame
    assert frame["a"].tolist() == ["3+", "0", "1"]
    assert frame["c"].tolist()[::2] == ["TRUE", "FALSE"]
    assert frame.isna().sum().tolist() == [0, 0, 1, 1]
    many = [f"{('0', '1', '2', '3+')[0 if i % 40 else 3]},{i % 2}" for i in range(400)]
    assert set(read_table(written(tmp_path / "b.csv", "a,y", *many)).frame["a"]) == {"0", "3+"}


def test_missing_values(tmp_path: Path) -> None:
    """In features pandas' spellings are gaps, in the target only an empty field and what the user says."""
    path = written(tmp_path / "a.csv", "n,t,y", "1,u,None", "NA,NA,NA", "?,?,x", ",,", "null,n/a,None", "2.5,-,x")
    table = read_table(path, na_values=["?", "-"])
    expected = pd.read_csv(path, na_values=["?", "-"])
    np.testing.assert_array_equal(table.frame["n"], expected["n"])
    assert table.frame["t"].isna().tolist() == expected["t"].isna().tolist() == [False, True, True, True, True, True]
    assert table.target is not None
    assert table.target.fillna("gap").tolist() == ["None", "NA", "x", "gap", "None", "x"]
    assert any("'None', 'NA' is a label" in note for note in table.notes)
    numbers = read_table(path, target="n", na_values=["?"]).target  # among numbers no class is called NA
    assert numbers is not None
    assert numbers.isna().tolist() == expected["n"].isna().tolist()
    target = read_table(path, na_values=["?", "-", "NA"]).target
    assert target is not None
    assert target.isna().tolist() == [False, True, False, True, False, False]


# Parquet and OpenML


def test_parquet_of_all_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "price": [decimal.Decimal("1.50"), None, decimal.Decimal("3.25")],
            "day": [datetime.date(2024, 1, 5), datetime.date(2024, 2, 6), None],
            "time": pd.to_datetime(["2024-01-05 10:30", None, "2024-01-06 00:00"]),
            "kind": pd.Categorical(["u", None, "v"]),
            "flag": pd.array([True, None, False], "boolean"),
            "count": pd.array([1, None, 3], "Int64"),
            "raw": [b"x", b"y", None],
            "y": [1, 2, 1],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet").frame
    np.testing.assert_array_equal(read["price"], [1.5, np.nan, 3.25])
    np.testing.assert_array_equal(read["count"], [1, np.nan, 3])
    expected = {
        "day": ["2024-01-05", "2024-02-06", ""],
        "time": ["2024-01-05T10:30:00.000000", "", "2024-01-06T00:00:00.000000"],
        "kind": ["u", "", "v"],
        "flag": ["True", "", "False"],
        "raw": ["x", "y", ""],
    }
    assert read[list(expected)].fillna("").to_dict("list") == expected
    assert pd.to_datetime(read["time"]).iloc[0] == frame["time"].iloc[0]
    data = datasets.load(written_parquet(tmp_path, frame[["y", "raw"]].iloc[:2]), target="raw")
    assert data.classes == ["x", "y"]


def written_parquet(tmp_path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(tmp_path / "b.parquet")
    return tmp_path / "b.parquet"


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("adult", {"name": "adult"}),
        ("adult@2", {"name": "adult", "version": 2}),
        ("1590", {"data_id": 1590}),
    ],
)
def test_openml(monkeypatch: pytest.MonkeyPatch, source: str, asked: dict[str, Any]) -> None:
    frame = pd.DataFrame(
        {
            "age": [25, 38, 28],
            "workclass": pd.Categorical(["Private", None, "State-gov"]),
            "grade": pd.Categorical(["1", "2", "1"]),
            "class": pd.Categorical(["<=50K", ">50K", "<=50K"]),
        }
    )
    calls: list[dict[str, Any]] = []

    def fetch(name: str | None = None, **options: Any) -> Any:
        calls.append({**({"name": name} if name else {}), **options})
        return SimpleNamespace(frame=frame, target_names=["class"])

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    table = read_table(f"openml:{source}")
    assert calls == [{**asked, "as_frame": True}]
    assert (table.target_name, table.task, table.target_guessed) == ("class", "classification", False)
    assert table.frame.fillna("").to_dict("list") == {
        "age": [25, 38, 28],
        "workclass": ["Private", "", "State-gov"],
        "grade": ["1", "2", "1"],  # nominal: a number is a name there
    }
    refused("openml:adult@two", r"got version 'two', expected a number, as in openml:adult@2")


# Arrays


@pytest.mark.parametrize(
    ("names", "test"),
    [
        ("X y", False),
        ("x y", False),
        ("data target", False),
        ("images labels", False),
        ("arr_0 arr_1", False),
        ("x_train y_train x_test y_test", True),
        ("X_train y_train X_test y_test", True),
        ("train_images train_labels test_images test_labels", True),
        ("Xtrain Ytrain Xtest Ytest", True),
        ("X y X_test y_test", True),
    ],
)
def test_npz_as_others_name_arrays(tmp_path: Path, names: str, test: bool) -> None:
    images, labels = np.arange(96, dtype=np.uint8).reshape(8, 4, 3), np.arange(8) % 3
    arrays = [images[:6], labels[:6], images[6:], labels[6:]]
    path = tmp_path / "a.npz"
    named: dict[str, Any] = dict(zip(names.split(), arrays, strict=False))
    np.savez(path, **named)
    data = datasets.load(path)
    np.testing.assert_array_equal(data.X, images[:6].reshape(6, 12))
    assert (data.y.tolist(), data.classes) == (labels[:6].tolist(), [0, 1, 2])
    rows = slice(6, 8) if test else slice(0, 6)
    assert (data.test is not None) == test
    if data.test is not None:
        np.testing.assert_array_equal(data.test[0], images[6:].reshape(2, 12))
        assert data.test[1].tolist() == labels[6:].tolist()
    later = datasets.load_test(path, classes=[0, 1, 2])
    np.testing.assert_array_equal(later[0], images[rows].reshape(-1, 12))
    assert later[1].tolist() == labels[rows].tolist()
    np.testing.assert_array_equal(datasets.load_features(path), images[rows].reshape(-1, 12))
    assert names == "X y" or any("'" + names.split()[0] + "'" in note for note in data.notes)


def test_npz_with_arrays_of_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, pixels=np.ones((4, 2)), digit=np.array([b"a", b"b", b"a", b"b"]), x=np.ones(4), data=np.ones(4))
    data = datasets.load(path, arrays={"X": "pixels", "y": "digit"})
    assert (data.X.shape, data.classes, data.y.tolist()) == ((4, 2), ["a", "b"], [0, 1, 0, 1])
    assert datasets.load_features(path, arrays={"X": "pixels"}).shape == (4, 2)
    for arrays, message in (
        ({}, r"and several may be meant; name them with --arrays X=NAME,y=NAME"),
        ({"X": "pixel", "y": "digit"}, r"has no array 'pixel'; did you mean 'pixels'\? \(arrays: 'pixels', 'digit'"),
        ({"X": "pixels"}, r"expected names for X and y"),
    ):
        with pytest.raises(DataError, match=message):
            datasets.load(path, arrays=arrays)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.idx", b"<!DOCTYPE html>", r"got bytes 3c 21 .*; it is a web page, not the data; download the file itself"),
        ("a.npy", b"PK\3\4" + bytes(30), r"expected 93 4e 55 4d 50 59 \(NPY\); it is a zip archive, as NPZ files are"),
        ("a.npz", b"\x93NUMPY" + bytes(30), r"is not a valid NPZ file .*; it is an NPY file; name it with the ending"),
    ],
)
def test_arrays_that_are_something_else(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        datasets.load_features(tmp_path / name)


def idx(path: Path, array: np.ndarray[Any, Any], code: int) -> Path:
    sizes = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes())
    return path


def test_a_file_of_labels_holds_labels(tmp_path: Path) -> None:
    images = idx(tmp_path / "a-images-idx3-ubyte", np.ones((480, 2, 2), np.uint8), 8)
    idx(tmp_path / "a-labels-idx1-ubyte", ((np.arange(480) % 120) * 2).astype(np.uint8), 8)
    data = datasets.load(images)
    assert (data.task, data.classes) == ("classification", list(range(0, 240, 2)))
    assert datasets.load(images, task="regression").classes is None
    np.savez(tmp_path / "a.npz", images=np.ones((480, 2, 2), np.uint8), labels=np.arange(480) % 120)
    assert datasets.load(tmp_path / "a.npz").classes == list(range(120))
    labels = np.c_[np.arange(480) % 10, np.full((480, 7), 77)].astype(np.int32)  # QMNIST: class, writer, ...
    qmnist = idx(tmp_path / "q-images-idx3-ubyte", np.ones((480, 2, 2), np.uint8), 8)
    idx(tmp_path / "q-labels-idx2-int", labels, 0x0C)
    assert datasets.load(qmnist).y.tolist() == [i % 10 for i in range(480)]


# Training on numbers shares all of this


def test_load_reads_what_read_table_reads(tmp_path: Path) -> None:
    lines = [f"{str(a).replace('.', ',')};{k}" for (a, _, _), k in zip(X, KIND, strict=True)]
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress("\n".join(["sep=;", "width;kind", *lines]).encode()))
    data = datasets.load(path)
    np.testing.assert_array_equal(data.X, X[:, :1])
    assert (data.classes, data.feature_names, data.target_name) == (["oak", "pine"], ("width",), "kind")
    assert any("was read as numbers" in note for note in data.notes)
    swapped = written(tmp_path / "b.csv", "kind,b,a", *(f"{k},{b},{a}" for (a, b, _), k in zip(X, KIND, strict=True)))
    np.testing.assert_array_equal(datasets.load(swapped, target="kind", feature_names=["a", "b"]).X, X[:, :2])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([1.0, 2.0])[np.arange(60) % 2], [1.0, 2.0]),
        (np.array([1, 2])[np.arange(60) % 2], [1, 2]),
        (np.array([True, False])[np.arange(60) % 2], [False, True]),
        (np.arange(60) * 250 + 30_000, None),
        (np.arange(60) / 4, None),
    ],
)
def test_the_task_follows_from_values_and_not_from_storage(tmp_path: Path, labels: Any, classes: Any) -> None:
    frame = pd.DataFrame({"a": X[:, 0], "y": labels})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", X=X, y=labels)
    np.save(tmp_path / "a.npy", frame.to_numpy(np.float64))
    for ending in ("csv", "parquet", "npz", "npy"):
        data = datasets.load(tmp_path / f"a.{ending}")
        assert data.classes == classes
        assert data.task == ("regression" if classes is None else "classification")


# What others write, in all their ways, against what pandas reads when it is told how


@given(
    columns=st.lists(
        st.one_of(
            st.lists(st.one_of(st.integers(-3000, 3000), st.none()), min_size=8, max_size=8),
            st.lists(st.one_of(st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), st.none()), min_size=8, max_size=8),
            st.lists(st.sampled_from(["Oslo", "São Paulo", "a,b", "c;d", 'e"f', "x|y", None]), min_size=8, max_size=8),
            st.lists(st.booleans(), min_size=8, max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
    separator=st.sampled_from(",;\t|"),
    mark=st.sampled_from(".,"),
    compression=st.sampled_from([None, "gzip", "bz2", "xz", "zip"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    index=st.booleans(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_pandas_writes_is_read(
    tmp_path: Path,
    columns: list[list[Any]],
    separator: str,
    mark: str,
    compression: Any,
    quoting: Any,
    index: bool,
) -> None:
    labels = ["007", "NA", "x", "None", "007", "x", "TRUE", "-"]
    frame = pd.DataFrame({f"name {i}": pd.Series(values, dtype=object) for i, values in enumerate(columns)})
    frame["label"] = labels
    path = tmp_path / "a.csv"
    written_as: dict[str, Any] = {"sep": separator, "decimal": mark, "quoting": quoting, "compression": compression}
    for name in frame.columns[:-1]:
        if frame[name].map(lambda x: isinstance(x, float), na_action="ignore").all():
            frame[name] = frame[name].astype(float)
    frame.to_csv(path, index=index, **written_as)
    expected = pd.read_csv(path, sep=separator, decimal=mark, compression=compression, index_col=0 if index else None)
    table = read_table(path)
    assert table.target is not None
    assert table.target.tolist() == labels
    assert list(table.frame.columns) == list(expected.columns[:-1])
    for name in table.frame.columns:
        read, right = table.frame[name], expected[name]
        assert read.isna().tolist() == right.isna().tolist()
        if right.dtype.kind in "if":
            np.testing.assert_allclose(read.to_numpy(float), right.to_numpy(float), rtol=1e-12)
        else:
            assert read.dropna().astype(str).tolist() == right.dropna().astype(str).tolist()
