"""Which source files a kernel is compiled from, found by following imports, and a hash of them."""

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parent
_PACKAGE = _ROOT.name
# Imports inside functions count. Parsing the files properly would take ten times as long, in every process.
_IMPORT = re.compile(rf"^[ \t]*from ({_PACKAGE}[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)


@functools.cache
def source_hash(module: str) -> str:
    """Hash the source files that a module is compiled from: 16 hexadecimal digits.

    Parameters
    ----------
    module : str
        A module of this package by its full name.
    """
    digest = hashlib.sha256()
    for name in sorted(modules_behind(module)):
        digest.update(name.encode() + b"\0" + _file_of(name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def modules_behind(module: str) -> frozenset[str]:
    """Name a module and all modules of this package that it imports, directly or through others.

    A name that is imported from a package counts as the module of that name, where there is one: the package's own
    ``__init__.py`` then does not count.
    """
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and has_file(name):
            found.add(name)
            waiting += _imports_of(_file_of(name).read_text(encoding="utf-8"))
    return frozenset(found)


def _imports_of(source: str) -> Iterator[str]:
    for package, names in _IMPORT.findall(source):
        for name in filter(None, map(str.strip, re.sub("#.*|[()]", "", names).split(","))):
            member = f"{package}.{name.partition(' as ')[0]}"
            yield member if has_file(member) else package


def has_file(module: str) -> bool:
    """Whether a name is that of a module of this package."""
    return module.split(".")[0] == _PACKAGE and _file_of(module).is_file()


@functools.cache
def _file_of(module: str) -> Path:
    """Return where a module is, or would be."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
