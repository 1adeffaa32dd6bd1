"""Numbers that are written as text: with a decimal comma, with marks between thousands, with a unit of money."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What stands for a missing value in a column of features, as pandas reads it (``pandas.read_csv``, ``na_values``).
MISSING = (
    "",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
)

PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?[iI]nf(?:inity)?", re.ASCII)

#: Signs of money (Unicode's category Sc), the common letters for it, and the codes of ISO 4217 that are met most.
_MONEY = (
    r"(?:US|AU?|CA?|NZ|HK|NT|S|R|MX)?[$¢£¥֏؋৳฿₠-⃀]|kr\.?|Kč|Ft|zł|Rs\.?|RM|lei|Fr\.?|"
    "USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|AUD|CAD|NZD|SGD|HKD|SEK|NOK|DKK|PLN|CZK|HUF|RON|RUB|TRY|ZAR|BRL|MXN|KRW"
)
_WITH_UNIT = re.compile(rf"([-+]?)\s*({_MONEY})?\s*([-+]?[\d.,'\u2019\s]*\d)\s*({_MONEY}|%)?")
_GROUPS = r"(?:\d+|[1-9]\d{{0,2}}(?:{0}\d{{3}})+)"
_BLANK = "[ \u00a0\u2009\u202f'\u2019]"
#: How digits are grouped, by the decimal mark: 1,234.5 and 1 234.5; 1.234,5 and 1 234,5.
_STYLES = {
    ".": re.compile(rf"[-+]?(?:{_GROUPS.format(',')}|{_GROUPS.format(_BLANK)})(?:\.\d+)?|[-+]?\.\d+"),
    ",": re.compile(rf"[-+]?(?:{_GROUPS.format('[.]')}|{_GROUPS.format(_BLANK)})(?:,\d+)?|[-+]?,\d+"),
}


def is_number(text: str) -> bool:
    """Return whether a field is a number as Python and pandas write it."""
    return PLAIN.fullmatch(text.strip()) is not None


def looks_like_number(text: str) -> bool:
    """Return whether a field is a number in any of the ways in which people write numbers."""
    return is_number(text) or _split(text) is not None


def _split(text: str) -> tuple[str, str, frozenset[str]] | None:
    """Return the unit, the digits with their marks, and the decimal marks under which they are a number."""
    match = _WITH_UNIT.fullmatch(text.strip().replace("\u2212", "-"))  # the minus of typesetters
    if match is None:
        return None
    sign, before, digits, after = match.groups()
    if (before and after) or (sign and digits[0] in "+-"):
        return None
    styles = frozenset(mark for mark, pattern in _STYLES.items() if pattern.fullmatch(digits))
    return (before or after or "", sign + digits, styles) if styles else None


@dataclass(frozen=True, eq=False)
class Reading:
    """The numbers in a column of text.

    Attributes
    ----------
    values : ndarray of float64
        NaN where a cell is missing or is no number.
    odd : ndarray of bool
        The cells that are there and are no numbers.
    example : tuple of str and float, or None
        A cell that is written in another way than Python writes numbers, and its value; None if there is none.
    decimal : str or None
        The decimal mark that the numbers tell; None if they have neither fractions nor marks.
    ambiguous : str or None
        A number in which the comma or point may be either mark, such as ``1,234``; None if it is told.
    """

    values: NDArray[np.float64]
    odd: NDArray[np.bool_]
    example: tuple[str, float] | None = None
    decimal: str | None = None
    ambiguous: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all cells that are not missing are numbers, and there is at least one."""
        return not self.odd.any() and not bool(np.isnan(self.values).all())


def read_numbers(texts: Any, decimal: str | None = None) -> Reading:
    """Read the numbers in a pandas Series of text.

    Parameters
    ----------
    texts : Series
        Missing values are missing.
    decimal : {".", ","} or None
        The decimal mark of the file, for numbers that do not tell it themselves.

    Returns
    -------
    Reading
        A number with another unit, or written in another way, than most numbers is an odd cell.
    """
    import pandas as pd

    missing = texts.isna().to_numpy(bool)
    values = np.asarray(pd.to_numeric(texts, errors="coerce").to_numpy(np.float64, na_value=np.nan))
    if not (np.isnan(values) & ~missing).any() and not (decimal == "," and _may_have_groups(texts)):
        return Reading(values, np.zeros(len(values), bool))
    cells = texts.astype(object).where(~missing, None).map(str, na_action="ignore").str.strip()
    distinct = pd.unique(cells[~missing])
    plain = {cell for cell in distinct if is_number(cell)}
    split = {cell: parts for cell in distinct if (parts := _split(cell)) is not None}
    units = [unit for unit, _, _ in split.values()]
    unit = max(sorted(set(units)), key=units.count, default="")
    shared = {cell: (digits, styles) for cell, (own, digits, styles) in split.items() if own == unit}
    told = [mark for _, styles in shared.values() if len(styles) == 1 for mark in styles]
    told_mark = max(sorted(set(told)), key=told.count, default=None)
    mark = told_mark or decimal or "."
    numbers = {cell: _plain(digits, mark) for cell, (digits, styles) in shared.items() if mark in styles}
    if not unit:  # 1e5 beside 1,500
        numbers |= {cell: cell for cell in plain - set(split)}
    ambiguous = None
    if told_mark is None and decimal is None:
        ambiguous = next((cell for cell in numbers if cell in shared and _is_ambiguous(shared[cell][0])), None)
    return Reading(
        _floats(cells, numbers),
        ~missing & ~cells.isin(set(numbers)).to_numpy(bool),
        next(((cell, float(number)) for cell, number in numbers.items() if number != cell), None),
        told_mark,
        ambiguous,
    )


def _is_ambiguous(digits: str) -> bool:
    return re.fullmatch(r"[-+]?[1-9]\d{0,2}[.,]\d{3}", digits) is not None


def _may_have_groups(texts: Any) -> bool:
    """Return whether each point in a column of numbers can stand between thousands."""
    return bool(texts.dropna().str.fullmatch(r"\s*[-+]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)\s*").all())


def _plain(digits: str, decimal: str) -> str:
    """Return a number as Python writes it."""
    return re.sub(r"[\s'\u2019]" + ("|," if decimal == "." else "|[.]"), "", digits).replace(",", ".")


def _floats(cells: Any, numbers: dict[str, str]) -> NDArray[np.float64]:
    return np.asarray(cells.map({cell: float(number) for cell, number in numbers.items()}).to_numpy(np.float64))
