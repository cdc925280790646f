"""The loops of `fastmf_kernels.linalg.rows` as explicit vector code; see `fastmf_kernels.linalg.panels_simd`."""

import math

from llvmlite import ir  # noqa: TID251

from fastmf_kernels._builder import WIDTH, ZERO, Builder


def hold_row(b: Builder, table: ir.Value, i: ir.Value, n_panels: int) -> list[ir.Value]:
    """Emit `rows.hold_row`."""
    return [b.load(b.at(b.at(table, i), panel * WIDTH)) for panel in range(n_panels)]


def put_row(b: Builder, row: list[ir.Value], table: ir.Value, i: ir.Value) -> None:
    """Emit `rows.put_row`."""
    for panel, vector in enumerate(row):
        b.store(vector, b.at(b.at(table, i), panel * WIDTH))


def multiply_row(b: Builder, row: list[ir.Value], table: ir.Value, i: ir.Value) -> ir.Value:
    """Emit `rows.multiply_row`: two independent sums."""
    return _dot(b, row, hold_row(b, table, i, len(row)))


def _dot(b: Builder, first: list[ir.Value], second: list[ir.Value]) -> ir.Value:
    sums = [ZERO, ZERO]
    for panel, (x, y) in enumerate(zip(first, second, strict=True)):
        sums[panel % 2] = b.multiply_add(x, y, sums[panel % 2])
    return b.sum(b.ir.fadd(*sums))


def move_row(
    b: Builder, row: list[ir.Value], source: list[ir.Value], table: ir.Value, i: ir.Value, *weights: ir.Value
) -> list[ir.Value]:
    """Emit `rows.move_row`."""
    keep_row, add_to_row, keep_other, add_to_other = weights
    others = hold_row(b, table, i, len(row))
    put_row(b, combine_rows(b, others, source, keep_other, add_to_other), table, i)
    return combine_rows(b, row, others, keep_row, add_to_row)


def combine_rows(
    b: Builder, row: list[ir.Value], other: list[ir.Value], keep: ir.Value, add: ir.Value
) -> list[ir.Value]:
    """Emit `rows.combine_rows`."""
    keep, add = b.everywhere(keep), b.everywhere(add)
    return [b.multiply_add(add, y, b.ir.fmul(keep, x)) for x, y in zip(row, other, strict=True)]


def inverse_roots(b: Builder, *squares: ir.Value) -> ir.Value:
    """Emit `rows.inverse_roots`: one square root and one division for both."""
    return b.together(b.inverse_roots(squares))


def exponential(b: Builder, x: ir.Value) -> ir.Value:
    """Emit `rows.exponential`: 2ⁿ·eʸ with whole n and |y| ≤ ½·log 2, whose series is short.

    A call of the C library would move every held row out of its registers and back.
    """
    x = b.at_most(b.at_least(x, -87.0), 88.0)
    n = b.nearest(b.ir.fmul(x, b.number(1 / math.log(2))))
    y = b.multiply_add(n, b.number(-math.log(2)), x)
    series = b.number(1 / math.factorial(7))
    for degree in range(6, -1, -1):
        series = b.multiply_add(series, y, b.number(1 / math.factorial(degree)))
    return b.ir.fmul(series, b.power_of_two(n))
