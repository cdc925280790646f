"""PTX as a compiler wrote it, taken apart: instructions, registers, shared memory and parameters.

NVIDIA, "Parallel Thread Execution ISA", sections 4 (syntax) and 5 (state spaces, types).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

DTYPES: dict[str, type[Any]] = {
    "pred": np.bool_,
    "b8": np.uint8,
    "u8": np.uint8,
    "s8": np.int8,
    "b16": np.uint16,
    "u16": np.uint16,
    "s16": np.int16,
    "f16": np.float16,
    "b32": np.uint32,
    "u32": np.uint32,
    "s32": np.int32,
    "f32": np.float32,
    "b64": np.uint64,
    "u64": np.uint64,
    "s64": np.int64,
    "f64": np.float64,
}


class Instruction(NamedTuple):
    """An instruction.

    Attributes
    ----------
    name : str
        With everything behind its dots.
    operands : tuple of str
        Vectors taken apart.
    guard : str
        The predicate that a thread needs to execute it, "" for none.
    inverted : bool
        Whether it must not hold.
    """

    name: str
    operands: tuple[str, ...]
    guard: str
    inverted: bool

    @property
    def types(self) -> list[str]:
        """The types in its name."""
        return [part for part in self.name.split(".") if part in DTYPES]

    @property
    def is_barrier_of_block(self) -> bool:
        """Whether all threads of a block meet here."""
        return self.name in ("bar.sync", "bar.red.or.pred")

    def __str__(self) -> str:
        return f"{self.name} {', '.join(self.operands)}"


class Program(NamedTuple):
    """A kernel.

    Attributes
    ----------
    instructions : list of Instruction
    labels : dict
        The number of the instruction behind each.
    registers : dict
        The type of registers by how their names begin.
    shared : dict
        Where each array begins in shared memory.
    n_shared : int
        Bytes of shared memory.
    parameters : list of (str, str)
        Name and type of each.
    """

    instructions: list[Instruction]
    labels: dict[str, int]
    registers: dict[str, str]
    shared: dict[str, int]
    n_shared: int
    parameters: list[tuple[str, str]]


def parse(text: str) -> Program:
    """Take the only kernel of a module apart."""
    text = re.sub(r"//[^\n]*", "", text)
    head, _, body = text.partition(".entry")
    shared, n_shared = _shared_arrays(head)
    signature, _, body = body.partition(")")
    parameters = [(name, kind) for kind, name in re.findall(r"\.param \.(\w+)\s+(\w+)", signature)]
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    registers: dict[str, str] = {}
    for statement in _statements(body[body.index("{") + 1 : body.rindex("}")]):
        if statement.endswith(":"):
            labels[statement[:-1]] = len(instructions)
        elif found := re.match(r"\.reg\s+\.(\w+)\s+(%?\w+)", statement):
            registers[found[2]] = found[1]
        elif not statement.startswith("."):
            instructions.append(_instruction(statement))
    return Program(instructions, labels, registers, shared, n_shared, parameters)


def _shared_arrays(head: str) -> tuple[dict[str, int], int]:
    shared, end = {}, 0
    for alignment, name, size in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", head):
        shared[name] = -(-end // int(alignment)) * int(alignment)
        end = shared[name] + int(size)
    return shared, end


def _statements(body: str) -> Iterator[str]:
    """Yield labels, declarations and instructions; the braces around assembler code written by hand say nothing new."""
    place = 0
    while place < len(body):
        if body[place].isspace() or body[place] in ";{}":
            place += 1
        elif found := re.compile(r"\$?\w+:").match(body, place):
            yield found[0]
            place = found.end()
        else:
            end = body.index(";", place)
            yield body[place:end].strip()
            place = end


def _instruction(statement: str) -> Instruction:
    found = re.match(r"(?:@(!?)(%\w+)\s+)?(\S+)\s*(.*)", statement, re.DOTALL)
    assert found is not None, statement
    operands = re.findall(r"\[[^\]]*\]|[^\s,{}|]+", found[4])
    return Instruction(found[3], tuple(operands), found[2] or "", bool(found[1]))
