"""Real data sets: which are in a directory, and their training and test parts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

import fastmf
from fastmf import Interactions
from fastmf.errors import FastMFError

RATINGS, EVENTS = "ratings", "events"

_GIVEN, _RANDOM, _PER_USER, _LAST = "given", "random", "per user", "last"
_PARTS = ("train", "test")
_HOLD_OUT = (EVENTS, _GIVEN, ("splits/0_train", "splits/0_test"))
_Files = tuple[str | None, str, tuple[str, ...]]
# Kind, split and files of a set. Whether "train" and "test" are of ratings is told by their columns.
_USUAL: tuple[_Files, ...] = (
    (RATINGS, _RANDOM, ("ratings",)),
    (EVENTS, _PER_USER, ("interactions",)),
    (None, _GIVEN, _PARTS),
)
# Those of the folders of these names. The one without any has the ratings of movielens-1m.
_KNOWN: dict[str, tuple[_Files, ...]] = {
    "movielens-100k": ((RATINGS, _GIVEN, ("splits/u1_train", "splits/u1_test")),),
    "movielens-1m": (
        (RATINGS, _GIVEN, ("splits/pmf_demo_train", "splits/pmf_demo_test")),
        (EVENTS, _PER_USER, ("ratings",)),
    ),
    "ncf-movielens-1m": (),
    "movielens-1m-topn": (_HOLD_OUT,),
    "epinions-topn": (_HOLD_OUT,),
    "steam-200k": ((EVENTS, _PER_USER, ("purchases",)),),
    "hetrec-lastfm-2k": ((EVENTS, _PER_USER, ("user_artists",)),),
    "deepcf-lastfm": ((EVENTS, _PER_USER, _PARTS),),
    "deepcf-amazon-music": ((EVENTS, _PER_USER, _PARTS), (RATINGS, _RANDOM, _PARTS)),
    "amazon-beauty-seq": ((EVENTS, _LAST, ("interactions",)),),
}


class DataSet(NamedTuple):
    """Where a data set is, and how it is split.

    Attributes
    ----------
    name : str
    kind : {"ratings", "events"}
    split : {"given", "random", "per user", "last"}
        "given": the first file is the training part, and the second the test part. Otherwise all files together are
        split: at random, at random among the events of each user, or the last event of each user is the test part, by
        the column ``position``.
    files : sequence of str
    """

    name: str
    kind: str
    split: str
    files: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Size of the files."""
        return sum(Path(file).stat().st_size for file in self.files)


def find_sets(data: Path, names: tuple[str, ...] = ()) -> list[DataSet]:
    """Return the data sets in the folders of a directory, in order of their names: all, or those named.

    Parameters
    ----------
    data : Path
    names : tuple of str
        Of folders. One folder may have both ratings and events.

    Returns
    -------
    list of DataSet

    Raises
    ------
    FastMFError
        If there is none, or one that is named is not there.

    Examples
    --------
    >>> from pathlib import Path
    >>> for data_set in find_sets(Path("data")):  # doctest: +SKIP
    ...     train, test = load(data_set)
    """
    found = [one for folder in sorted(data.iterdir()) if folder.is_dir() for one in _sets_in(folder)]
    there = dict.fromkeys(one.name for one in found)
    if not there:
        raise FastMFError(f"there are no data sets in {data}; --help says which files a folder there has")
    for name in names:
        if name not in there:
            raise FastMFError(f"there is no data set {name!r} in {data}; expected some of {', '.join(there)}")
    return [one for one in found if one.name in (names or there)]


def _sets_in(folder: Path) -> Iterator[DataSet]:
    for kind, split, names in _KNOWN.get(folder.name, _USUAL):
        files = [folder / f"{name}.parquet" for name in names]
        if all(file.exists() for file in files):
            told = RATINGS if "rating" in pq.read_schema(files[0]).names else EVENTS
            yield DataSet(folder.name, kind or told, split, tuple(map(str, files)))


def load(data_set: DataSet) -> tuple[Interactions, Interactions]:
    """Read a data set and return its training part and its test part.

    A tenth of ratings and a fifth of the events of each user are for the test where no split is given; that is drawn
    with the seed 0. Of a pair that occurs more than once, the last row counts.
    """
    _, kind, split, files = data_set
    rating = "rating" if kind == RATINGS else None
    if split == _GIVEN:
        train, test = (fastmf.read_parquet(file, rating=rating, duplicates="last") for file in files)
        return train, test
    timestamp = "position" if split == _LAST else None
    whole = fastmf.read_parquet(files, rating=rating, timestamp=timestamp, duplicates="last")
    if split == _LAST:
        return fastmf.split.leave_last_out(whole)
    return fastmf.split.random(whole, 0.1) if split == _RANDOM else fastmf.split.per_user(whole, 0.2)


def files_of_ratings(data: Path, names: Sequence[str], usual: Sequence[str]) -> list[Path]:
    """Return the files ``ratings.parquet`` of the folders with some names, or of those with usual names that there are.

    Raises
    ------
    FastMFError
        If one that was named, or all of the usual ones, are missing.
    """
    files = [data / name / "ratings.parquet" for name in names or usual]
    missing = [str(file) for file in files if not file.exists()]
    if (names and missing) or len(missing) == len(files):
        raise FastMFError(f"there is no {' and no '.join(missing)}; --sets names the folders that have such a file")
    return [file for file in files if file.exists()]
