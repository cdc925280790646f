"""Recommendations to Parquet: in parts, so that an interrupted call continues where it stopped."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastmf.answering.answers import Batches, add_scans
from fastmf.common.files import naming, new_directory, new_file, output_path, require_absent
from fastmf.common.leftovers import locked, parts_beside
from fastmf.common.progress import Progress
from fastmf.common.work_log import logged
from fastmf.errors import DataError, OutputError, OutputExistsError
from fastmf.reading.parquet import PathLike
from fastmf_kernels.topk.arrays import Scan

# Batches of users in a file: what is lost when a call is interrupted.
_BATCHES_A_PART = 8
# Spark, too, writes files whose names begin with "part-".
_PART = re.compile(r"part-\d{5,}\.parquet")
# So many names of files are shown in a message.
_SHOWN = 5


def write_recommendations(
    batches: Batches, path: PathLike, *, partitioned: bool = False, overwrite: bool = False, shown: bool = False
) -> int:
    """Write batches of recommendations to Parquet; the output appears whole or not at all.

    Parts are finished one by one in a hidden directory beside the output. An interrupted call leaves them there, and
    the same call continues after them: the output has the same bytes as without the interruption. Each part has a
    checksum; a part that does not match it is computed again. When the output is whole, parts that other interrupted
    calls have left for it are removed.

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
        If ``path`` exists and ``overwrite`` is false, or is a directory of anything other than recommendations.
    OutputError
        If there is no room or no permission, or another process is writing the same recommendations there.
    """
    require_replaceable(path, overwrite=overwrite, partitioned=partitioned)
    if batches.n_users == 0:
        raise DataError("there are no users to recommend to; expected at least one")
    work = f"recommending to {batches.n_users:,} users in {path}"
    with logged(work), _parts_directory(path, batches.fingerprint()) as folder:
        files = _write_parts(batches, folder, path, shown)
        n_rows = sum(int(pq.read_metadata(file).num_rows) for file in files)
        if partitioned:
            with new_directory(path, overwrite) as directory:
                for file in files:
                    os.replace(file, directory / file.name)
                require_replaceable(path, overwrite=overwrite, partitioned=True)  # somebody may have put files there
        else:
            _join(files, path, overwrite)
        shutil.rmtree(folder, ignore_errors=True)
    return n_rows


def require_replaceable(path: PathLike, *, overwrite: bool, partitioned: bool) -> None:
    """Raise an error unless recommendations may be put at ``path``.

    A directory is replaced only by a directory, and only if it holds nothing but parts of recommendations.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and may not be overwritten.
    OutputError
        If ``path`` cannot be written.
    """
    require_absent(path, overwrite)
    final = output_path(path)
    if final.is_file() and partitioned:
        raise OutputExistsError(f"{path} is a file; expected the name of a directory to write")
    if not final.is_dir():
        return
    if not partitioned:
        raise OutputExistsError(f"{path} is a directory; expected the name of a file to write")
    foreign = sorted(entry.name + "/" * entry.is_dir() for entry in final.iterdir() if not _is_part(entry))
    if foreign:
        shown = ", ".join(foreign[:_SHOWN]) + (f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else "")
        raise OutputExistsError(
            f"{path} holds more than parts of recommendations, which alone are overwritten: {shown}; move them, or "
            "choose another output"
        )


def _is_part(entry: Path) -> bool:
    return _PART.fullmatch(entry.name) is not None and entry.is_file()


@contextmanager
def _parts_directory(path: PathLike, fingerprint: str) -> Iterator[Path]:
    """Give the directory of finished parts to one process; it is removed if it is empty in the end."""
    folder = parts_beside(output_path(path), fingerprint)
    with naming(path):
        with suppress(FileExistsError):  # who is done removes it at any moment, also between two steps of this call
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as has_lock:
            if not has_lock:
                raise OutputError(
                    f"cannot write {path}: another process is writing the same recommendations there; wait for "
                    "it, or choose another output"
                )
            try:
                yield folder
            except (KeyboardInterrupt, SystemExit) as error:
                error.add_note(_what_remains(folder))
                raise
            finally:
                if folder.exists() and not any(folder.iterdir()):
                    folder.rmdir()


def _what_remains(folder: Path) -> str:
    # While the output is put together, its parts leave the folder.
    n_parts = sum(_record_of(file).exists() for file in folder.glob("part-*.parquet"))
    if n_parts == 0:
        return "no part was finished: the same call starts afresh"
    return f"{n_parts} finished part{'s' * (n_parts > 1)} are kept in {folder}: the same call continues after them"


def _write_parts(batches: Batches, folder: Path, path: PathLike, shown: bool) -> list[Path]:
    """Write the parts of ``path`` that are missing or damaged; returns the files of all parts, in order."""
    starts = range(0, batches.n_batches, _BATCHES_A_PART)
    files = [folder / f"part-{number:05d}.parquet" for number in range(len(starts))]
    scan, n_done, started = Scan(0, 0, 0), 0, time.perf_counter()
    with Progress("recommend", batches.n_users, "user", shown) as progress:
        for file, start in zip(files, starts, strict=True):
            numbers = range(start, min(start + _BATCHES_A_PART, batches.n_batches))
            if _is_whole(file):
                progress.advance(sum(batches.size(number) for number in numbers), "done before")
                continue
            with new_file(file, overwrite=True, part_of=path) as temporary:
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
            with new_file(_record_of(file), overwrite=True, part_of=path) as temporary:
                temporary.write_text(json.dumps(_describe(file)), encoding="utf-8")
    return files


def _record_of(file: Path) -> Path:
    """Return the file beside a part that says what the part holds."""
    return file.with_suffix(".json")


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"n_rows": pq.read_metadata(file).num_rows, "bytes": file.stat().st_size, "sha256": digest}


def _is_whole(file: Path) -> bool:
    """Whether a part is there, and as it was when it was finished."""
    try:
        return bool(json.loads(_record_of(file).read_text(encoding="utf-8")) == _describe(file))
    except (OSError, ValueError, pa.ArrowException):
        return False


def _join(files: list[Path], path: PathLike, overwrite: bool) -> None:
    n_bytes = sum(file.stat().st_size for file in files)
    with new_file(path, overwrite, n_bytes) as temporary, pq.ParquetWriter(temporary, **_format(files[0])) as writer:
        for file in files:
            parquet = pq.ParquetFile(file)
            for number in range(parquet.num_row_groups):
                writer.write_table(parquet.read_row_group(number))


def _in_words(scan: Scan, rate: float) -> str:
    n_tiles = scan.n_screened + scan.n_skipped
    skipped = f", {scan.n_skipped / n_tiles:.0%} of the tiles skipped" if n_tiles else ""
    return f"{rate:,.0f} users/s{skipped}"


def _format(file: Path) -> dict[str, Any]:
    return {"schema": pq.read_schema(file), "compression": "zstd"}
