"""What the parameters of a class mean, read from its docstring and those of its bases.

A parameter is described once, in the class that declares it or in one that says more of it. The docstrings that users
read, and the options of the command, are made from these descriptions.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_HEADING = "Parameters\n----------\n"
# The end of a section: the heading of the next one, or the end of the docstring.
_NEXT_HEADING = re.compile(r"\n\n(?=[A-Z]\w+\n-{3,}\n)|\Z")
# An entry: "name : type", or "name, name : type", and the indented lines below it.
_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*) : (?P<kind>.+)\n?(?P<text>(?:[ ]+.*\n?|\n(?=[ ]))*)", re.MULTILINE)
_ENDS_A_SENTENCE = re.compile(r"[.:](?:\s|$)")


class ParameterDoc(NamedTuple):
    """The entry of a parameter in a section "Parameters" of NumPy style.

    Attributes
    ----------
    kind : str
        Its type in words: ``"int"``, ``"float, optional"``, ``'{"count", "none"}'``.
    text : str
        What it means, in lines without indentation.
    """

    kind: str
    text: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The strings that the parameter may be; empty where it is something else."""
        listed = re.match(r"\{(.+)\}", self.kind)
        return tuple(ast.literal_eval(f"[{listed[1]}]")) if listed else ()

    @property
    def names_of_values(self) -> tuple[str, ...]:
        """The names of the values of a pair, as in ``(low, high)``; empty where it is something else."""
        listed = re.match(r"\((.+?)\)", self.kind)
        return tuple(name.strip() for name in listed[1].split(",")) if listed else ()

    @property
    def summary(self) -> str:
        """The first sentence, in one line and without its full stop."""
        text = " ".join(self.text.split()).replace("``", "")
        end = _ENDS_A_SENTENCE.search(text)
        return text[: end.start()] if end else text


def read_parameters(doc: str | None) -> dict[str, ParameterDoc]:
    """Return the entries of the section "Parameters" of a docstring, by name; none where there is no such section."""
    _, _, rest = inspect.cleandoc(doc or "").partition(_HEADING)
    if not rest:
        return {}
    end = _NEXT_HEADING.search(rest)
    section = rest[: end.start()] if end else rest
    found: dict[str, ParameterDoc] = {}
    for entry in _ENTRY.finditer(section):
        text = inspect.cleandoc(entry["text"])
        found |= {name: ParameterDoc(entry["kind"].strip(), text) for name in entry["names"].split(", ")}
    return found


def merged_parameters(tables: Iterable[Mapping[str, ParameterDoc]]) -> dict[str, ParameterDoc]:
    """Merge tables of entries, that of the most general class first: a later entry replaces an earlier one."""
    merged: dict[str, ParameterDoc] = {}
    for table in tables:
        merged |= table
    return merged


def with_parameters(doc: str, parameters: Mapping[str, ParameterDoc], defaults: Mapping[str, Any]) -> str:
    """Return a docstring whose section "Parameters" lists these parameters, with their defaults.

    Parameters
    ----------
    doc : str
        A docstring with or without such a section. One without gets it at its end.
    parameters : dict of str to ParameterDoc
    defaults : dict of str to object
        The default of each parameter that has one; None is not shown.
    """
    before, _, rest = inspect.cleandoc(doc).partition(_HEADING)
    end = _NEXT_HEADING.search(rest)
    after = rest[end.start() :] if end else ""
    entries = "".join(_entry(name, entry, defaults.get(name)) for name, entry in parameters.items())
    return f"{before.rstrip()}\n\n{_HEADING}{entries.rstrip()}{after}\n"


def _entry(name: str, entry: ParameterDoc, default: Any) -> str:
    shown = "" if default is None else f", default {default!r}"
    lines = "".join(f"    {line}".rstrip() + "\n" for line in entry.text.splitlines())
    return f"{name} : {entry.kind}{shown}\n{lines}"
