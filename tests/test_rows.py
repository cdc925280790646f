"""Lists of items for each user in one pair of arrays, against plain lists."""

import numpy as np
import pytest

from fastmf.answering import rows as of_rows
from fastmf.answering.rows import contains, count_contained, keep_columns, renumber_columns
from fastmf_kernels.topk.arrays import Rows


def drawn(seed: int) -> tuple[Rows, "np.typing.NDArray[np.bool_]"]:
    rng = np.random.default_rng(seed)
    table = rng.random((int(rng.integers(1, 8)), int(rng.integers(1, 70)))) < rng.choice([0, 0.1, 0.5, 1])
    indptr = np.append(0, np.cumsum(table.sum(axis=1))).astype(np.int64)
    return Rows(indptr, np.nonzero(table)[1].astype(np.int32)), table


@pytest.mark.parametrize("chunk", [7, 1 << 15])
@pytest.mark.parametrize("seed", range(12))
def test_contains_says_which_pairs_are_there(seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_rows, "_SEARCHED_AT_ONCE", chunk)
    rng, (rows, table) = np.random.default_rng(seed), drawn(seed)
    n_rows, n_columns = table.shape
    row, column = rng.integers(-1, n_rows, 200).astype(np.int32), rng.integers(-2, n_columns + 3, 200).astype(np.int32)

    found = contains(rows, row, column)

    inside = (row >= 0) & (column >= 0) & (column < n_columns)
    assert found.tolist() == (inside & table[row, np.clip(column, 0, n_columns - 1)]).tolist()
    assert contains(rows, row[:0], column[:0]).shape == (0,)


@pytest.mark.parametrize("seed", range(12))
def test_contained_pairs_are_counted(seed: int) -> None:
    rng, (rows, table) = np.random.default_rng(seed), drawn(seed)
    n_rows, n_columns = table.shape
    row, column = (rng.integers(-1, n, 200).astype(np.int32) for n in (n_rows, n_columns))

    counted = count_contained(rows, row, column, n_columns)

    assert counted == np.count_nonzero(table[row, column] & (row >= 0) & (column >= 0))
    assert count_contained(rows, row[:0], column[:0], n_columns) == 0


@pytest.mark.parametrize("seed", range(12))
def test_columns_are_dropped_and_renumbered(seed: int) -> None:
    rng, (rows, table) = np.random.default_rng(seed), drawn(seed)
    kept = np.flatnonzero(rng.random(table.shape[1]) < 0.6).astype(np.int32)
    numbers = np.full(table.shape[1], -1, np.int32)
    numbers[kept] = np.arange(len(kept))

    renumbered, same = renumber_columns(rows, numbers), keep_columns(rows, kept, table.shape[1])

    assert (renumbered.indptr.dtype, renumbered.indices.dtype) == (np.int64, np.int32)
    assert (
        renumbered.indptr.tolist()
        == same.indptr.tolist()
        == np.append(0, np.cumsum(table[:, kept].sum(axis=1))).tolist()
    )
    assert renumbered.indices.tolist() == np.nonzero(table[:, kept])[1].tolist()
    assert same.indices.tolist() == kept[renumbered.indices].tolist()
