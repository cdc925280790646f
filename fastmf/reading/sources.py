"""Find the files of a source: a file, a folder, a pattern, a URI, a file object, or several of these.

Folders are searched to the bottom for Parquet files. Names that begin with a dot are skipped, and so are names that
begin with an underscore, except for folders such as ``_year=2024``. A folder ``NAME=VALUE`` below the one that was
given adds a column NAME to the files in it (a Hive key).
"""

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs

from fastmf.errors import DataError, ParameterError

PathLike = str | os.PathLike[str]

SUFFIXES = (".parquet", ".parq", ".pq")
_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_URI_THAT_LOST_A_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
_WILDCARD = re.compile(r"[*?\[]")
_SCHEMES = ("file", "s3", "gs", "abfs", "abfss", "hdfs")


class Version(NamedTuple):
    """Size in bytes and time of modification of a file; both are None for the content of a file object."""

    size: int | None
    modified: int | None


class DataFile(NamedTuple):
    """A file of a source, and the Hive keys of the folders that it is in."""

    name: str
    keys: Mapping[str, str | None]
    filesystem: Any = None
    path: str = ""
    content: pa.Buffer | None = None

    def open(self) -> Any:
        """Open the file for reading at any position.

        Raises
        ------
        OSError, pyarrow.ArrowException
        """
        if self.content is not None:
            return pa.BufferReader(self.content)
        if self.filesystem is not None:
            return self.filesystem.open_input_file(self.path)
        return pa.OSFile(self.name)

    def version(self) -> Version:
        """Return what changes when the file is written again.

        Raises
        ------
        OSError, pyarrow.ArrowException
        """
        if self.content is not None:
            return Version(None, None)
        if self.filesystem is not None:
            info = self.filesystem.get_file_info(self.path)
            return Version(info.size, info.mtime_ns)
        status = os.stat(self.name)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'a special file')}, not a regular file")
        return Version(status.st_size, status.st_mtime_ns)


_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}


def find_files(source: Any) -> list[DataFile]:
    """List the files of a source, in a fixed order.

    Parameters
    ----------
    source : path-like, binary file object, or iterable of these
        A file, a folder (all Parquet files below it), a pattern with ``*``, ``?``, ``[...]`` and ``**``, or a URI such
        as ``s3://bucket/folder``. Several are listed in the order given.

    Raises
    ------
    DataError
        If a file or folder does not exist, cannot be listed, or holds no Parquet file.
    ParameterError
        If ``source`` is something else.
    """
    files = [file for one in _each(source) for file in _expand(one)]
    if not files:
        raise DataError("no files were given; expected at least one Parquet file")
    return files


def _each(source: Any) -> Iterable[Any]:
    if isinstance(source, (str, bytes, os.PathLike)) or hasattr(source, "read"):
        return [source]
    if isinstance(source, ds.Dataset) or hasattr(source, "collect_schema") or hasattr(source, "columns"):
        raise ParameterError(
            f"path is a {type(source).__name__}; expected the path of a Parquet file: pass tables to "
            "Interactions.from_arrow"
        )
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return sorted(source, key=str) if isinstance(source, (set, frozenset)) else source
    raise ParameterError(
        f"path is {source!r}; expected the path of a Parquet file, a folder, a pattern, a URI, a file object, or "
        "several of these"
    )


def _expand(one: Any) -> list[DataFile]:
    if hasattr(one, "read"):
        return [_content(one)]
    if not isinstance(one, (str, bytes, os.PathLike)):
        raise ParameterError(f"path holds {one!r}; expected paths, URIs or file objects")
    name = _as_text(os.fspath(one))
    if _URI.match(name):
        return _expand_uri(name)
    return _expand_local(name)


def _as_text(name: Any) -> str:
    if isinstance(name, bytes):
        if name.startswith(b"PAR1"):
            raise ParameterError("path is the content of a Parquet file; wrap it: read_parquet(io.BytesIO(content))")
        name = os.fsdecode(name)
    if "\0" in name:
        raise DataError(f"no such file: {name!r}; a name cannot hold a NUL character")
    return str(name)


def _content(file: Any) -> DataFile:
    """Read a file object from its beginning to its end."""
    label = getattr(file, "name", None)
    name = label if isinstance(label, str) else f"the {type(file).__name__}"
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)  # it may just have been written
        content = file.read()
    except Exception as error:  # file objects of other libraries raise anything
        raise DataError(f"cannot read {name}: {error}; open it again, for reading in binary mode") from error
    if not isinstance(content, (bytes, bytearray, memoryview, pa.Buffer)):
        raise DataError(f"{name} gives {type(content).__name__}; expected bytes: open the file in binary mode ('rb')")
    return DataFile(name, {}, content=pa.py_buffer(content))


def _expand_local(given: str) -> list[DataFile]:
    name = given if os.path.lexists(given) else os.path.expanduser(given)
    if os.path.isdir(name):
        return _in_folder(name)
    if os.path.lexists(name):
        return [DataFile(name, {})]
    found = _in_pattern(name) if _WILDCARD.search(name) else []
    if not found:
        hint = "; give a URI as a str, not as a Path" if _URI_THAT_LOST_A_SLASH.match(name) else ""
        raise DataError(f"no such file: {given}; expected a Parquet file, a directory of them, or a pattern{hint}")
    return found


def _in_folder(name: str) -> list[DataFile]:
    others: list[str] = []
    found = sorted(_walk(name, (), others))
    if not found:
        held = f"; it holds {', '.join(sorted(others)[:3])}{', ...' if len(others) > 3 else ''}" if others else ""
        raise DataError(f"directory {name} holds no *.parquet file; expected at least one{held}")
    return [DataFile(os.path.join(name, path), _keys(path.split(os.sep)[:-1])) for path in found]


def _walk(folder: str, above: tuple[str, ...], others: list[str]) -> Iterator[str]:
    """Yield the Parquet files below a folder, relative to it; collect the names of other files."""
    here = (*above, os.path.realpath(folder))
    for entry in _entries(folder):
        if _is_skipped(entry.name, entry.is_dir()):
            continue
        if entry.is_dir():
            if os.path.realpath(entry.path) not in here:  # a link to a folder above would be followed for ever
                yield from (os.path.join(entry.name, path) for path in _walk(entry.path, here, others))
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.name
        else:
            others.append(entry.name)


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"cannot list {folder}: {error.strerror or error}; expected a folder that can be read"
        ) from error


def _is_skipped(name: str, is_folder: bool) -> bool:
    return name.startswith(".") or (name.startswith("_") and not (is_folder and "=" in name))


def _keys(folders: Sequence[str]) -> dict[str, str | None]:
    """Parse the names of folders below the one that was given; the deepest key of a name counts."""
    pairs = (folder.split("=", 1) for folder in folders if "=" in folder[1:])
    return {_unquoted(key): None if value == _NULL_KEY else _unquoted(value) for key, value in pairs}


def _unquoted(text: str) -> str:
    """Replace %XX by what it stands for, unless that is no text: two such keys must not become one."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def _in_pattern(pattern: str) -> list[DataFile]:
    parts = Path(pattern).parts
    n_fixed = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
    base = os.path.join(*parts[:n_fixed]) if n_fixed else ""
    found: dict[str, DataFile] = {}
    for match in sorted(_matches(base, parts[n_fixed:], ())):
        names = Path(match).parts[n_fixed:]
        if os.path.isdir(match):
            below = sorted(_walk(match, (), []))
        else:
            below, names = [""], names[:-1]
        for path in below:
            file = os.path.join(match, path) if path else match
            found[file] = DataFile(file, _keys([*names, *path.split(os.sep)[:-1]]))
    return [found[file] for file in sorted(found)]


def _matches(folder: str, parts: tuple[str, ...], above: tuple[str, ...]) -> Iterator[str]:
    """Yield the files and folders that a pattern matches; wildcards match no name that a folder's search skips."""
    if not parts or parts == ("**",):
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if not _WILDCARD.search(first):
        path = os.path.join(folder, first)
        if os.path.lexists(path):
            yield from _matches(path, rest, above)
        return
    if first == "**":
        yield from _matches(folder, rest, above)
    here = (*above, os.path.realpath(folder))
    for entry in _entries(folder or "."):
        path, is_folder = os.path.join(folder, entry.name), entry.is_dir()
        asked_for = entry.name[0] == first[0] or not _is_skipped(entry.name, is_folder)
        if not asked_for or (not is_folder and (rest or first == "**")):
            continue
        if first == "**":
            if os.path.realpath(path) not in here:
                yield from _matches(path, parts, here)
        elif fnmatch.fnmatchcase(entry.name, first):
            yield from _matches(path, rest, above)


def _expand_uri(uri: str) -> list[DataFile]:
    scheme = uri.partition("://")[0].lower()
    try:
        filesystem, path = _open_uri(uri)
        if isinstance(filesystem, pa_fs.LocalFileSystem):
            return _expand_local(path)
        info = filesystem.get_file_info(path)
        if info.type == pa_fs.FileType.Directory:
            return _in_remote_folder(uri, filesystem, path)
    except (pa.ArrowException, OSError, ValueError, TypeError, ImportError) as error:
        if isinstance(error, DataError):
            raise
        if scheme not in _SCHEMES:
            raise DataError(
                f"the scheme {scheme!r} of {uri} is not known; expected one of {', '.join(_SCHEMES)}: copy the file to "
                "this machine first"
            ) from error
        raise DataError(f"cannot open {uri}: {first_line(error)}; check the address and the credentials") from error
    if info.type == pa_fs.FileType.NotFound:
        raise DataError(f"no such file: {uri}; expected a Parquet file or a directory of them")
    return [DataFile(uri, {}, filesystem, path)]


def _open_uri(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI, and the path in it."""
    filesystem, path = pa_fs.FileSystem.from_uri(uri)
    return filesystem, path


def _in_remote_folder(uri: str, filesystem: Any, folder: str) -> list[DataFile]:
    infos = filesystem.get_file_info(pa_fs.FileSelector(folder, recursive=True))
    files = []
    for path in sorted(info.path for info in infos if info.type == pa_fs.FileType.File):
        *folders, name = path[len(folder) :].strip("/").split("/")
        skipped = _is_skipped(name, False) or any(_is_skipped(part, True) for part in folders)
        if not skipped and name.lower().endswith(SUFFIXES):
            full = "/".join([uri.rstrip("/"), *folders, name])
            files.append(DataFile(full, _keys(folders), filesystem, path))
    if not files:
        raise DataError(f"directory {uri} holds no *.parquet file; expected at least one")
    return files


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a message of our own."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
