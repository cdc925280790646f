"""Lines of a text file in blocks, with their numbers."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from fastmf.errors import DataError, ParameterError, named

_BLOCK = 1 << 22  # characters
_SUFFIXES = (".gz", ".bz2", ".xz")
_OPENERS: dict[bytes, Any] = {  # by the first bytes
    b"\x1f\x8b": gzip.open,
    **{f"BZh{level}1AY&SY".encode(): bz2.open for level in range(1, 10)},
    b"\xfd7zXZ\0": lzma.open,
}
_NO_TEXT = {
    b"PAR1": "it is a Parquet file, which needs no conversion",
    b"PK\x03\x04": "it is a ZIP archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd: decompress it first",
}


class Block(NamedTuple):
    """Whole lines that are not empty, and their numbers, from 1; ``numbers`` is None if they follow each other."""

    text: str
    first_line: int
    numbers: list[int] | None = None

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n") + (not self.text.endswith("\n"))

    def line_of(self, row: int) -> int:
        """Return the number of a line, counted from 0 in the block, or from the end if negative."""
        row = row if row >= 0 else self.n_lines + row
        return self.first_line + row if self.numbers is None else self.numbers[row]

    def line_with(self, part: str) -> int:
        """Return the number of the first line that holds ``part``."""
        return self.line_of(self.text.count("\n", 0, self.text.index(part)))

    def drop_first(self) -> "Block":
        """Return the block without its first line."""
        rest = self.text.partition("\n")[2]
        numbers = None if self.numbers is None else self.numbers[1:]
        return Block(rest, self.first_line + 1 if not numbers else numbers[0], numbers)


def without_compression(path: Path) -> Path:
    """Remove the suffix of a compressed file."""
    return path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path


def blocks(path: Path, encoding: str) -> Iterator[Block]:
    """Yield the lines of a file, without those that are empty.

    Raises
    ------
    DataError
        If the file is no text of that encoding; the message gives the line.
    ParameterError
        If Python has no such encoding.
    """
    number = 1
    try:
        with _open(path) as binary, _decoded(binary, encoding) as text:
            while chunk := text.read(_BLOCK) + text.readline():
                block = _without_empty_lines(chunk, number)
                number += chunk.count("\n")
                if block.text:
                    yield block
    except UnicodeDecodeError as error:
        raise DataError(_not_text(path, encoding, number, error)) from error
    except UnicodeError as error:  # of encodings that do not say where
        raise DataError(f"it is not {encoding}: {error}; give --encoding, for example latin-1") from error
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{error}; the file is cut off or damaged: copy it again") from error


def _open(path: Path) -> IO[bytes]:
    """Open a file, and decompress it if its first bytes are those of compressed data, whatever its name."""
    with open(path, "rb") as file:
        head = file.read(16)
    for magic, words in _NO_TEXT.items():
        if head.startswith(magic):
            raise DataError(words)
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), open)
    opened: IO[bytes] = opener(path, "rb")
    return opened


def _decoded(binary: IO[bytes], encoding: str) -> io.TextIOWrapper:
    try:
        with_mark = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        return io.TextIOWrapper(binary, with_mark)
    except LookupError as error:
        raise ParameterError(
            f"{named('encoding')} is {encoding!r}; expected a name that Python knows, such as latin-1"
        ) from error


def _without_empty_lines(chunk: str, first: int) -> Block:
    if not chunk.startswith("\n") and "\n\n" not in chunk:
        return Block(chunk, first)
    numbered = [(number, line) for number, line in enumerate(chunk.split("\n"), first) if line]
    numbers = [number for number, _ in numbered]
    return Block("".join(f"{line}\n" for _, line in numbered), numbers[0] if numbers else first, numbers)


def _not_text(path: Path, encoding: str, number: int, error: UnicodeDecodeError) -> str:
    """Word where bytes are no text: the line is found by decoding one after the other."""
    with _open(path) as binary:
        if binary.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            if "16" in encoding:
                return f"it is cut off or damaged: {error.reason}; copy it again"
            return f"it is not {encoding} but UTF-16; give --encoding utf-16"
        binary.seek(0)
        for line_number, line in enumerate(binary, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as found:
                number, error = line_number, found
                break
    byte = error.object[error.start : error.start + 1]
    return f"line {number}: the byte {byte!r} is not {encoding}; give --encoding, for example latin-1"
