"""What instructions do to numbers: one NumPy function for each, of arrays with a number for each thread.

NVIDIA, "Parallel Thread Execution ISA", section 9.7. Sums of tensor cores are cut off, as adverse as devices were seen
to be: products are aligned to the largest of eight and of the sum before, and lose what is below 2⁻²⁴ of it (Fasi,
Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7, 2021).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]


def _fma(a: Numbers, b: Numbers, c: Numbers) -> Numbers:
    # A product of two float32 numbers is exact in float64.
    return (a.astype(np.float64) * b + c).astype(c.dtype)


def _fma_down(a: Numbers, b: Numbers, c: Numbers) -> Numbers:
    exact = a.astype(np.float64) * b + c
    rounded: Numbers = exact.astype(np.float32)
    return np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _high(a: Numbers, b: Numbers) -> Numbers:
    return ((a.astype(object) * b.astype(object)) >> (8 * a.itemsize)).astype(a.dtype)


def _divide(a: Numbers, b: Numbers) -> Numbers:
    if a.dtype.kind == "f":
        return np.true_divide(a, b)
    assert a.dtype.kind == "u", "only division without signs rounds the way NumPy does"
    return np.floor_divide(a, b)


def _shift_left(a: Numbers, n: Numbers) -> Numbers:
    bits = 8 * a.itemsize
    return np.where(n < bits, a << np.minimum(n, bits - 1).astype(a.dtype), a.dtype.type(0))


def _shift_right(a: Numbers, n: Numbers) -> Numbers:
    bits = 8 * a.itemsize
    shifted = a >> np.minimum(n, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(n < bits, shifted, a.dtype.type(0))


def _insert_bits(a: Numbers, b: Numbers, start: Numbers, length: Numbers) -> Numbers:
    kind = b.dtype.type
    start, length = start.astype(b.dtype), length.astype(b.dtype)
    ones = np.where(length < 8 * b.itemsize, (kind(1) << length) - kind(1), np.iinfo(kind).max)
    return (b & ~(ones << start)) | ((a & ones) << start)


def _reciprocal_root(x: Numbers) -> Numbers:
    """Return 1/√x with an error of up to 2⁻²³, drawn by hashing x."""
    drawn = (x.view(np.uint32) * np.uint32(2654435761)).astype(np.float64) / 2**31 - 1
    return ((1 + 2.0**-23 * drawn) / np.sqrt(x.astype(np.float64))).astype(np.float32)


def _saturate(x: Numbers) -> Numbers:
    return np.where(np.isnan(x), np.float32(0), np.clip(x, np.float32(0), np.float32(1)))


# Those whose operands, and result, are of the type that ends their name.
PURE: dict[str, Callable[..., Numbers]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.lo": np.multiply,
    "mul.hi": _high,
    "mad.lo": lambda a, b, c: a * b + c,
    "fma.rn": _fma,
    "fma.rm": _fma_down,
    "div": _divide,
    "div.rn": _divide,
    "rcp.rn": np.reciprocal,
    "sqrt.rn": np.sqrt,
    "rsqrt.approx.ftz": _reciprocal_root,
    "ex2.approx.ftz": np.exp2,
    "neg": np.negative,
    "abs": np.abs,
    "min": lambda a, b: (np.fmin if a.dtype.kind == "f" else np.minimum)(a, b),
    "max": lambda a, b: (np.fmax if a.dtype.kind == "f" else np.maximum)(a, b),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "mov": np.copy,
    "cvta.to.global": np.copy,
    "cvt.sat.f32": _saturate,
}

# Those with operands of other types: the types, of the result first.
MIXED: dict[str, tuple[Callable[..., Numbers], tuple[str, ...]]] = {
    "popc.b32": (np.bitwise_count, ("u32", "b32")),
    "popc.b64": (np.bitwise_count, ("u32", "b64")),
    "mul.wide.s32": (lambda a, b: a.astype(np.int64) * b, ("s64", "s32", "s32")),
    "mul.wide.u32": (lambda a, b: a.astype(np.uint64) * b, ("u64", "u32", "u32")),
    "cvt.rn.f16x2.f32": (
        lambda high, low: np.stack([low, high], axis=-1).astype(np.float16).view(np.uint32)[..., 0],
        ("b32", "f32", "f32"),
    ),
    **{f"bfi.b{n}": (_insert_bits, (f"b{n}", f"b{n}", f"b{n}", "u32", "u32")) for n in (32, 64)},
    **{f"shl.b{n}": (_shift_left, (f"b{n}", f"b{n}", "u32")) for n in (16, 32, 64)},
    **{f"shr.{k}{n}": (_shift_right, (f"{k}{n}", f"{k}{n}", "u32")) for n in (16, 32, 64) for k in "bus"},
}

_ORDERED: dict[str, Callable[..., Numbers]] = {
    "eq": np.equal,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
# With a "u", comparisons also hold where one of the numbers is not a number.
COMPARISONS = _ORDERED | {
    name + "u": lambda a, b, compare=compare: compare(a, b) | (a != a) | (b != b) for name, compare in _ORDERED.items()
}


def multiply_matrices(a: Numbers, b: Numbers, c: Numbers) -> Numbers:
    """Return what lanes of warps have of AB + C: ``mma.m16n8k16`` of float16 with float32 sums.

    Parameters
    ----------
    a, b : uint32 arrays, shapes (n_warps, 32, 4) and (n_warps, 32, 2)
        Pairs of float16 numbers.
    c : float32 array, shape (n_warps, 32, 4)
    """
    group, member = np.divmod(np.arange(32), 4)
    left, right = np.empty((len(a), 16, 16)), np.empty((len(a), 16, 8))
    sums = np.empty((len(a), 16, 8))
    for half in range(2):
        for i in range(4):  # four registers, two rows and two halves of the columns
            values = (a[..., i] >> np.uint32(16 * half)).astype(np.uint16).view(np.float16)
            left[:, group + 8 * (i % 2), 2 * member + half + 8 * (i // 2)] = values
            sums[:, group + 8 * (i // 2), 2 * member + i % 2] = c[..., i]
        for i in range(2):
            values = (b[..., i] >> np.uint32(16 * half)).astype(np.uint16).view(np.float16)
            right[:, 2 * member + half + 8 * i, group] = values
    for start in (0, 8):
        terms = left[:, :, start : start + 8, None] * right[:, None, start : start + 8, :]
        sums = _add_cut_off(np.concatenate([sums[:, :, None, :], terms], axis=2))
    places = [(group + 8 * (i // 2), 2 * member + i % 2) for i in range(4)]
    return np.stack([sums[:, row, column] for row, column in places], axis=-1).astype(np.float32)


def _add_cut_off(terms: Numbers) -> Numbers:
    largest = np.abs(terms).max(axis=2, keepdims=True)
    unit = np.ldexp(1.0, np.frexp(largest)[1] - 24)
    exact = np.isfinite(largest[:, :, 0]) & (largest[:, :, 0] > 0)
    total = np.where(exact, (np.trunc(terms / unit) * unit).sum(axis=2), terms.sum(axis=2))
    rounded = total.astype(np.float32)
    towards_zero = np.where(np.abs(rounded) > np.abs(total), np.nextafter(rounded, np.float32(0)), rounded)
    return np.where(exact, towards_zero, total)
