"""Least squares with coefficients that are never negative, for laws of a few terms.

A cost or a number of bytes that falls as a batch grows is noise, and a plan built on it is wrong
where it matters. With at most a handful of terms every subset of them can be tried, which is
exact and needs no library.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Row = Sequence[float]


def fit(rows: Sequence[Row], values: Sequence[float]) -> list[float]:
    """Return the coefficients that fit ``values`` best, each 0 or more.

    Errors count relative to the value, so that small batches are fitted as well as large ones.
    """
    width = len(rows[0])
    scaled = [[x / max(v, 1e-12) for x in row] for row, v in zip(rows, values, strict=True)]
    # Terms differ by many orders of magnitude: bring each to 1 before anything is solved.
    units = [max(abs(row[i]) for row in scaled) or 1.0 for i in range(width)]
    scaled = [[x / unit for x, unit in zip(row, units, strict=True)] for row in scaled]
    products = [[sum(r[i] * r[j] for r in scaled) for j in range(width)] for i in range(width)]
    sums = [sum(r[i] for r in scaled) for i in range(width)]
    best, least = [0.0] * width, 0.0
    for size in range(1, width + 1):
        for terms in combinations(range(width), size):
            found = _solve(
                [[products[i][j] for j in terms] for i in terms], [sums[i] for i in terms]
            )
            if found is None or min(found) < 0:
                continue
            # The squared error is this much below that of fitting nothing.
            gain = sum(x * sums[i] for x, i in zip(found, terms, strict=True))
            if -gain < least - 1e-9:
                best, least = [0.0] * width, -gain
                for x, i in zip(found, terms, strict=True):
                    best[i] = x
    return [x / unit for x, unit in zip(best, units, strict=True)]


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Return the solution of a small symmetric system; None when it has no single one."""
    size = len(right)
    rows = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda i: abs(rows[i][column]))
        if abs(rows[pivot][column]) < 1e-9:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for i in range(column + 1, size):
            factor = rows[i][column] / rows[column][column]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[column], strict=True)]

    found = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(rows[i][j] * found[j] for j in range(i + 1, size))
        found[i] = (rows[i][size] - rest) / rows[i][i]
    return found
