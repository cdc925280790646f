"""Say what a file is that cannot be read as Parquet, and what to do with it."""

import codecs

from fastmf.reading.sources import DataFile

_HEAD = 4096  # bytes that are looked at
_MAGIC = b"PAR1"

_CONVERT = "convert text with `fastmf convert`"
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PARE", "it is an encrypted Parquet file: decrypt it first"),
    (b"ARROW1", "it is an Arrow file: read it with pyarrow.ipc and pass the table to Interactions.from_arrow"),
    (b"ORC", "it is an ORC file: read it with pyarrow.orc and pass the table to Interactions.from_arrow"),
    (b"\x1f\x8b", f"it is compressed with gzip: {_CONVERT}, or decompress it"),
    (b"BZh", f"it is compressed with bzip2: {_CONVERT}, or decompress it"),
    (b"\xfd7zXZ", f"it is compressed with xz: {_CONVERT}, or decompress it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: decompress it first"),
    (b"PK\x03\x04", "it is a ZIP archive (or .xlsx, .npz): unpack it first"),
    (b"\x93NUMPY", "it is a NumPy file: load it with numpy.load and pass arrays to Interactions.from_arrays"),
    (b"\x89HDF", "it is an HDF5 file: read it with its own library and pass the table to Interactions.from_arrow"),
    (b"SQLite", "it is an SQLite database: read it with its own library and pass the table to Interactions.from_arrow"),
)


def describe_content(file: DataFile) -> str | None:
    """Return what a file is and what to do with it, or None if it is empty, or begins and ends as Parquet does.

    Parameters
    ----------
    file : DataFile
        One that could not be read as Parquet.
    """
    try:
        file.version()  # raises an error for a pipe, which would never open
        with file.open() as handle:
            size = handle.size()
            head = handle.read(min(size, _HEAD))
            handle.seek(max(size - 4, 0))
            tail = handle.read(4)
    except Exception:  # what cannot be opened has an error of its own
        return None
    if not head:
        return None
    if head.startswith(_MAGIC):
        return None if tail == _MAGIC else f"it is cut off after {size} bytes: copy or write it again"
    for magic, words in _OTHERS:
        if head.startswith(magic):
            return words
    words = f"it is text: {_CONVERT}" if _is_text(head) else f"it begins with {head[:4]!r}, not with {_MAGIC!r}"
    return f"{words}, or copy or write it again"


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return sum(byte < 128 for byte in head) > 0.7 * len(head)
    return True
