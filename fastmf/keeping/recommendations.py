"""Recommendations to Parquet: in parts, so that an interrupted call goes on where it stopped."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fastmf.answering.answers import Batches, add_scans
from fastmf.common.files import new_directory, new_file, require_absent
from fastmf.common.progress import Progress
from fastmf.errors import DataError, OutputExistsError
from fastmf.reading.parquet import PathLike
from fastmf_kernels.topk.arrays import Scan

# Batches of users in a file: what is lost when a call is interrupted.
_BATCHES_A_PART = 8


def write_recommendations(
    batches: Batches, path: PathLike, *, partitioned: bool = False, overwrite: bool = False, shown: bool = False
) -> int:
    """Write batches of recommendations to Parquet; the output appears whole or not at all.

    Parts are finished one by one in a hidden directory beside the output. A call that was interrupted leaves them
    there, and the same call goes on after them: the output has the same bytes as if nothing had happened.

    Parameters
    ----------
    batches : Batches
    path : path-like
    partitioned : bool
        Whether to make a directory of several files instead of one file.
    overwrite : bool
        Whether an existing output may be replaced.
    shown : bool
        Whether to show progress.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    DataError
        If there are no users.
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false, or is a directory of anything else than recommendations.
    """
    final = Path(path)
    _require_replaceable_recommendations(final, overwrite, partitioned)
    if batches.n_users == 0:
        raise DataError("there are no users to recommend to; expected at least one")
    parts = parts_directory(final, batches.fingerprint())
    parts.mkdir(parents=True, exist_ok=True)
    try:
        files = _write_parts(batches, parts, shown)
    finally:
        if not any(parts.iterdir()):
            parts.rmdir()
    n_rows = sum(int(pq.read_metadata(file).num_rows) for file in files)
    if partitioned:
        with new_directory(final, overwrite) as folder:
            for file in files:
                os.replace(file, folder / file.name)
    else:
        with new_file(final, overwrite) as temporary, pq.ParquetWriter(temporary, **_format(files[0])) as writer:
            for file in files:
                parquet = pq.ParquetFile(file)
                for number in range(parquet.num_row_groups):
                    writer.write_table(parquet.read_row_group(number))
    shutil.rmtree(parts, ignore_errors=True)
    return n_rows


def parts_directory(path: Path, fingerprint: str) -> Path:
    """Return where the finished parts of an output are while it is not whole."""
    return path.absolute().parent / f".{path.name}.parts-{fingerprint}"


def _write_parts(batches: Batches, folder: Path, shown: bool) -> list[Path]:
    """Write the parts that are not there yet; returns the files of all of them, in order."""
    starts = range(0, batches.n_batches, _BATCHES_A_PART)
    files = [folder / f"part-{number:05d}.parquet" for number in range(len(starts))]
    scan, n_done, started = Scan(0, 0, 0), 0, time.perf_counter()
    with Progress("recommend", batches.n_users, "user", shown) as progress:
        for file, start in zip(files, starts, strict=True):
            numbers = range(start, min(start + _BATCHES_A_PART, batches.n_batches))
            if file.exists():
                progress.advance(sum(batches.size(number) for number in numbers), "done before")
                continue
            with new_file(file, overwrite=True) as temporary:
                writer: pq.ParquetWriter | None = None
                try:
                    for number in numbers:
                        batch = batches.compute(number)
                        table = batch.to_arrow()
                        writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                        writer.write_table(table)
                        scan, n_done = add_scans([scan, batch.scan]), n_done + len(batch.users)
                        progress.advance(len(batch.users), _in_words(scan, n_done / (time.perf_counter() - started)))
                finally:
                    if writer is not None:
                        writer.close()
    return files


def _in_words(scan: Scan, rate: float) -> str:
    n_tiles = scan.n_screened + scan.n_skipped
    skipped = f", {scan.n_skipped / n_tiles:.0%} of the tiles skipped" if n_tiles else ""
    return f"{rate:,.0f} users/s{skipped}"


def _format(file: Path) -> dict[str, Any]:
    return {"schema": pq.read_schema(file), "compression": "zstd"}


def _require_replaceable_recommendations(path: Path, overwrite: bool, partitioned: bool) -> None:
    """Raise an error unless an output may be put there: of directories only one that holds nothing but parts."""
    require_absent(path, overwrite)
    if path.is_dir() and not (partitioned and all(p.match("part-*.parquet") for p in path.iterdir())):
        raise OutputExistsError(
            f"{path} is a directory; expected the name of a file to write"
            if not partitioned
            else f"{path} holds more than parts of recommendations, which alone are overwritten; choose another output"
        )
