"""The worked example: every intermediate number that texts print, as they print it, and an independent computation.

The numbers are those of M. Mazur, "A Step by Step Backpropagation Example" (2015), and of its many retellings, which
add those of h2 and o2. A number has to agree to all its printed digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: What the example starts from.
GIVEN = {
    "i1": "0.05",
    "i2": "0.10",
    "target_o1": "0.01",
    "target_o2": "0.99",
    "w1": "0.15",
    "w2": "0.20",
    "w3": "0.25",
    "w4": "0.30",
    "w5": "0.40",
    "w6": "0.45",
    "w7": "0.50",
    "w8": "0.55",
    "b_h1": "0.35",
    "b_h2": "0.35",
    "b_o1": "0.60",
    "b_o2": "0.60",
    "eta": "0.5",
}

#: What the first round computes, in the order of the algorithm.
PRINTED = {
    "net_h1": "0.3775",
    "out_h1": "0.593269992",
    "net_h2": "0.3925",
    "out_h2": "0.596884378",
    "net_o1": "1.105905967",
    "out_o1": "0.75136507",
    "net_o2": "1.224921404",
    "out_o2": "0.772928465",
    "E_o1": "0.274811083",
    "E_o2": "0.023560026",
    "E": "0.298371109",
    "dE/dout_o1": "0.74136507",
    "dout_o1/dnet_o1": "0.186815602",
    "delta_o1": "0.138498562",
    "dE/dout_o2": "-0.217071535",
    "dout_o2/dnet_o2": "0.175510053",
    "delta_o2": "-0.038098237",
    "dnet_o1/dw5": "0.593269992",
    "dE/dw5": "0.082167041",
    "dE_o1/dout_h1": "0.055399425",
    "dE_o2/dout_h1": "-0.019049118",
    "dE/dout_h1": "0.036350306",
    "dout_h1/dnet_h1": "0.241300709",
    "dnet_h1/dw1": "0.05",
    "dE/dw1": "0.000438568",
    "w1+": "0.149780716",
    "w2+": "0.19956143",
    "w3+": "0.24975114",
    "w4+": "0.29950229",
    "w5+": "0.35891648",
    "w6+": "0.408666186",
    "w7+": "0.511301270",
    "w8+": "0.561370121",
}

#: Printed with a last digit that is off by one, because rounded factors were multiplied.
MISPRINTED = {"dE_o2/dout_h1": "-0.019049119"}


@dataclass(frozen=True)
class Closing:
    """What the example ends with after some rounds: the error, and the two outputs where a text prints them."""

    weights: str
    rounds: int
    error: str
    outputs: tuple[str, str] | None = None


#: Errors after 10,000 rounds, which start with 3.510e-5 and 3.508e-5, are given to the digits on which `descend` in
#: float64 and in 40-digit decimal arithmetic agree.
CLOSING = (
    Closing("original", 1, "0.291027773694"),
    # The lecture's figure for 10,000 rounds: the right algorithm, one update earlier.
    Closing("original", 9_999, "0.0000351085"),
    Closing("original", 10_000, "0.000035101877830", ("0.015913620", "0.984064274")),
    # The article's figures: 0.291027924 after one round, 0.000035085 after 10,000.
    Closing("updated", 1, "0.291027923905"),
    Closing("updated", 10_000, "0.000035084786296", ("0.015912196", "0.984065734")),
)


def same_digits(value: float, printed: str) -> bool:
    """Whether a number, rounded to as many decimals as were printed, is what was printed."""
    decimals = len(printed.partition(".")[2])
    return f"{value:.{decimals}f}" == printed


def descend(weights: str, rounds: int) -> tuple[float, float, float]:
    """Return E, out_o1 and out_o2 after some rounds: the article's formulas, written out, in plain floats."""
    i1, i2, t1, t2, eta = 0.05, 0.10, 0.01, 0.99, 0.5
    w1, w2, w3, w4, b1 = 0.15, 0.20, 0.25, 0.30, 0.35
    w5, w6, w7, w8, b2 = 0.40, 0.45, 0.50, 0.55, 0.60

    def squash(net: float) -> float:
        return 1 / (1 + math.exp(-net))

    for done in range(rounds + 1):
        h1, h2 = squash(w1 * i1 + w2 * i2 + b1), squash(w3 * i1 + w4 * i2 + b1)
        o1, o2 = squash(w5 * h1 + w6 * h2 + b2), squash(w7 * h1 + w8 * h2 + b2)
        if done == rounds:
            break
        d1, d2 = -(t1 - o1) * o1 * (1 - o1), -(t2 - o2) * o2 * (1 - o2)
        n5, n6, n7, n8 = w5 - eta * d1 * h1, w6 - eta * d1 * h2, w7 - eta * d2 * h1, w8 - eta * d2 * h2
        if weights == "updated":
            w5, w6, w7, w8 = n5, n6, n7, n8
        e1, e2 = (d1 * w5 + d2 * w7) * h1 * (1 - h1), (d1 * w6 + d2 * w8) * h2 * (1 - h2)
        w1, w2, w3, w4 = w1 - eta * e1 * i1, w2 - eta * e1 * i2, w3 - eta * e2 * i1, w4 - eta * e2 * i2
        w5, w6, w7, w8 = n5, n6, n7, n8
    return (t1 - o1) ** 2 / 2 + (t2 - o2) ** 2 / 2, o1, o2
