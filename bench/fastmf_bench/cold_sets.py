"""Data sets with features of items, of which some items have no training ratings and some have few."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import fastmf
from fastmf import Features, Interactions
from fastmf.errors import FastMFError
from fastmf_kernels._types import BoolArray, Int64Array

COLD_SHARE, THINNED_SHARE, TEST_SHARE = 0.2, 0.1, 0.1
FEW = 5
"""Items with fewer training ratings have few."""


class ColdSet(NamedTuple):
    """Where a data set is.

    Attributes
    ----------
    name : str
    folder : str
    """

    name: str
    folder: str

    @property
    def n_bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in _files(Path(self.folder)))


class Parts(NamedTuple):
    """The parts of some ratings; all have the users and the items of the whole.

    Attributes
    ----------
    train : Interactions
    cold : Interactions
        All ratings of the items that are held out whole.
    warm : Interactions
        Ratings of other items that are held out.
    is_cold : bool array, shape (n_items,)
    """

    train: Interactions
    cold: Interactions
    warm: Interactions
    is_cold: BoolArray

    @property
    def n_train(self) -> Int64Array:
        """How many training ratings each item has."""
        return np.bincount(self.train.items, minlength=self.train.n_items)


class _Description(NamedTuple):
    """The files of a data set, and how its features are read.

    Attributes
    ----------
    ratings, features : str
        Without the ending of Parquet. Every rating, high or low, counts as a choice.
    read : callable
        Makes `Features` of the table of features.
    shown : str
        Which features these are, in words.
    """

    ratings: str
    features: str
    read: Callable[[pa.Table], Features]
    shown: str


def find_sets(data: Path, names: tuple[str, ...] = ()) -> list[ColdSet]:
    """Return the data sets with known features in the folders of a directory: all, or those named.

    Parameters
    ----------
    data : Path
    names : tuple of str
        Of folders.

    Returns
    -------
    list of ColdSet
        In order of their names.

    Raises
    ------
    FastMFError
        If there is none, or one that is named is not there.

    Examples
    --------
    >>> from pathlib import Path
    >>> for cold_set in find_sets(Path("data")):  # doctest: +SKIP
    ...     whole, features = load(cold_set)
    """
    for name in names:
        if name not in _KNOWN:
            raise FastMFError(f"the features of items of {name!r} are not known; expected some of {', '.join(_KNOWN)}")
    found = [ColdSet(name, str(data / name)) for name in sorted(names or _KNOWN)]
    there = [one for one in found if all(file.exists() for file in _files(Path(one.folder)))]
    missing = [one.name for one in found if one not in there]
    if not there or (names and missing):
        absent = " and no ".join(missing)
        raise FastMFError(f"there is no {absent} in {data}; --help says which files a folder there has")
    return there


def load(cold_set: ColdSet) -> tuple[Interactions, Features]:
    """Read all ratings of a data set as choices, and the features of its items."""
    described = _KNOWN[cold_set.name]
    ratings, features = _files(Path(cold_set.folder))
    whole = fastmf.read_parquet(str(ratings), rating=None, duplicates="last")
    return whole, described.read(pq.read_table(features))


def features_in_words(name: str) -> str:
    """Say which features the items of a data set have; "" for a set that is not known."""
    return _KNOWN[name].shown if name in _KNOWN else ""


def hold_out(whole: Interactions, seed: int) -> Parts:
    """Hold a fifth of the items out whole, and some ratings of the others.

    A tenth of the items is thinned: 1 to 4 of their ratings, each number as likely, are training ratings, and the
    others are test ratings. Of the remaining items a tenth of the ratings is held out, but never the last one that
    they have.

    Parameters
    ----------
    whole : Interactions
    seed : int

    Returns
    -------
    Parts

    Examples
    --------
    >>> import fastmf
    >>> parts = hold_out(fastmf.testing.film_club(n_users=60, n_items=40, mean_ratings=15), seed=0)
    >>> int(parts.is_cold.sum()), int(parts.n_train[parts.is_cold].sum())
    (8, 0)
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(whole.n_items)
    n_cold, n_thinned = (round(share * whole.n_items) for share in (COLD_SHARE, THINNED_SHARE))
    is_cold = np.zeros(whole.n_items, bool)
    is_cold[order[:n_cold]] = True
    thinned = order[n_cold : n_cold + n_thinned]
    n_kept = np.zeros(whole.n_items, np.int64)
    n_kept[thinned] = generator.integers(1, FEW, n_thinned)
    places = _places_within_items(whole, generator)
    kept = n_kept[whole.items]
    at_random = (kept == 0) & (places > 0) & (generator.random(whole.n_ratings) < TEST_SHARE)
    of_cold = is_cold[whole.items]
    in_test = ((kept > 0) & (places >= kept)) | at_random
    masks = (~of_cold & ~in_test, of_cold, ~of_cold & in_test)
    train, cold, warm = (whole.take(np.flatnonzero(mask)) for mask in masks)
    return Parts(train, cold, warm, is_cold)


def _places_within_items(whole: Interactions, generator: np.random.Generator) -> Int64Array:
    """Return the place of each rating, from 0, in a random order of the ratings of its item."""
    shuffled = generator.permutation(whole.n_ratings)
    by_item = shuffled[np.argsort(whole.items[shuffled], kind="stable")]
    items = whole.items[by_item]
    places = np.empty(whole.n_ratings, np.int64)
    places[by_item] = np.arange(len(items)) - np.searchsorted(items, items)
    return places


def _files(folder: Path) -> tuple[Path, Path]:
    described = _KNOWN[folder.name]
    return folder / f"{described.ratings}.parquet", folder / f"{described.features}.parquet"


def _films(items: pa.Table) -> Features:
    """Genres, and the year at the end of a title with its decade as a category."""
    found = pc.struct_field(pc.extract_regex(items["title"], r"\((?P<year>\d{4})\)\s*$"), "year")
    year = pc.cast(found, pa.int64())
    table = items.select(["item_id", "genres"]).append_column("year", year)
    return Features.from_arrow(table.append_column("decade", pc.divide(year, 10)), categories=["decade"])


def _animes(items: pa.Table) -> Features:
    return Features.from_arrow(items, columns=["genre", "type"], separator=",")


def _books(items: pa.Table) -> Features:
    return Features.from_arrow(items, columns=["author", "publisher"])


def _pairs_with(column: str) -> Callable[[pa.Table], Features]:
    return partial(Features.from_arrow, feature=column, duplicates="last")


_KNOWN: Mapping[str, _Description] = {
    "amazon-beauty-seq": _Description(
        "interactions", "item_attributes", _pairs_with("attribute_id"), "categories and brand"
    ),
    "anime-5k": _Description("interactions", "items", _animes, "genres, type"),
    "book-crossing-10core": _Description("interactions", "items", _books, "author, publisher"),
    "citeulike-a": _Description("interactions", "item_tags", _pairs_with("tag_id"), "tags"),
    "movielens-1m": _Description("ratings", "items", _films, "genres, year, decade"),
}
