"""What makes an instruction of a program into something that executes it for threads.

NVIDIA, "Parallel Thread Execution ISA", section 9.7; matrices of tensor cores: section 9.7.14.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cuda.ptx.machine import WARP, Active, Execute, Machine, Numbers
from tests.cuda.ptx.memory import KernelError
from tests.cuda.ptx.operations import COMPARISONS, MIXED, PURE, multiply_matrices
from tests.cuda.ptx.program import DTYPES, Instruction

_ALL = 0xFFFFFFFF


def make_step(machine: Machine, instruction: Instruction) -> Execute:
    """Return what executes an instruction for threads.

    Raises
    ------
    NotImplementedError
        If it is unknown here.
    """
    name, _, kind = instruction.name.rpartition(".")
    n = len(instruction.operands)
    if name in PURE and kind in DTYPES and (name != "mov" or n == 2):
        return _computes(machine, instruction, PURE[name], (kind,) * n)
    if instruction.name in MIXED:
        return _computes(machine, instruction, *MIXED[instruction.name])
    make = _MAKERS.get(instruction.name.partition(".")[0])
    if make is None:
        raise NotImplementedError(f"the interpreter does not know the instruction {instruction}")
    return make(machine, instruction)


def _computes(
    machine: Machine, instruction: Instruction, function: Callable[..., Numbers], kinds: tuple[str, ...]
) -> Execute:
    target, *sources = instruction.operands
    write = machine.write(target, kinds[0])
    reads = [machine.read(source, kind) for source, kind in zip(sources, kinds[1:], strict=True)]
    return lambda active: write(active, function(*(read(active) for read in reads)))


def _mov(machine: Machine, instruction: Instruction) -> Execute:
    """Put a number together, or take one apart: the lowest bits first."""
    (kind,), operands = instruction.types, instruction.operands
    n_parts, n_bits = len(operands) - 1, int(kind[1:]) // (len(operands) - 1)
    part = f"u{n_bits}"
    if machine.n_bits(operands[0]) == n_parts * n_bits:
        write, reads = machine.write(operands[0], kind), [machine.read(operand, part) for operand in operands[1:]]
        return lambda active: write(
            active, np.stack([read(active) for read in reads], axis=-1).view(DTYPES[kind])[..., 0]
        )
    read, writes = machine.read(operands[-1], kind), [machine.write(operand, part) for operand in operands[:-1]]

    def execute(active: Active) -> None:
        parts = read(active)[:, None].view(DTYPES[part])
        for i, write in enumerate(writes):
            write(active, parts[:, i])

    return execute


def _setp(machine: Machine, instruction: Instruction) -> Execute:
    (_, comparison, kind), (target, a, b) = instruction.name.split("."), instruction.operands
    write, compare = machine.write(target, "pred"), COMPARISONS[comparison]
    left, right = machine.read(a, kind), machine.read(b, kind)
    return lambda active: write(active, compare(left(active), right(active)))


def _selp(machine: Machine, instruction: Instruction) -> Execute:
    (kind,), (target, a, b, which) = instruction.types, instruction.operands
    write, left, right, choose = (
        machine.write(target, kind),
        machine.read(a, kind),
        machine.read(b, kind),
        machine.read(which, "pred"),
    )
    return lambda active: write(active, np.where(choose(active), left(active), right(active)))


def _cvt(machine: Machine, instruction: Instruction) -> Execute:
    to, of = instruction.types
    if instruction.name not in (f"cvt.{to}.{of}", f"cvt.rn.{to}.{of}"):
        raise NotImplementedError(f"the interpreter does not know the instruction {instruction}")
    return _computes(machine, instruction, lambda x: x.astype(DTYPES[to]), (to, of))


def _bra(machine: Machine, instruction: Instruction) -> Execute:
    return lambda active: machine.jump(active, instruction.operands[0])


def _ret(machine: Machine, instruction: Instruction) -> Execute:
    return machine.end


def _ld(machine: Machine, instruction: Instruction) -> Execute:
    (kind,), (*targets, source) = instruction.types, instruction.operands
    writes, dtype = [machine.write(target, kind) for target in targets], DTYPES[kind]
    if ".param." in instruction.name:
        number = dtype(machine.arguments[source.strip("[]")])
        return lambda active: writes[0](active, np.full(len(active), number))
    addresses, is_shared = machine.addresses(source), ".shared." in instruction.name

    def execute(active: Active) -> None:
        if is_shared:
            numbers = machine.shared.read(active, addresses(active), dtype, len(writes))
        else:
            array, at = machine.memory.numbers(addresses(active), dtype, len(writes))
            numbers = array[at]
        for i, write in enumerate(writes):
            write(active, numbers[:, i])

    return execute


def _st(machine: Machine, instruction: Instruction) -> Execute:
    (kind,), (target, *sources) = instruction.types, instruction.operands
    reads, dtype = [machine.read(source, kind) for source in sources], DTYPES[kind]
    addresses, is_shared = machine.addresses(target), ".shared." in instruction.name

    def execute(active: Active) -> None:
        numbers = np.stack([read(active) for read in reads], axis=1)
        if is_shared:
            machine.shared.write(active, addresses(active), numbers)
        else:
            array, at = machine.memory.numbers(addresses(active), dtype, len(reads))
            array[at] = numbers

    return execute


def _red(machine: Machine, instruction: Instruction) -> Execute:
    """Add to global memory."""
    target, *sources = instruction.operands
    in_halves, addresses = instruction.name.endswith("f16x2"), machine.addresses(target)
    kind = "b32" if in_halves else instruction.types[0]
    reads, dtype = [machine.read(source, kind) for source in sources], np.float16 if in_halves else DTYPES[kind]

    def execute(active: Active) -> None:
        numbers = np.stack([read(active) for read in reads], axis=1).view(dtype)
        array, at = machine.memory.numbers(addresses(active), dtype, numbers.shape[1])
        np.add.at(array, at, numbers)

    return execute


def _atom(machine: Machine, instruction: Instruction) -> Execute:
    (kind,), (target, place, source) = instruction.types, instruction.operands
    if not instruction.name.startswith("atom.shared.add."):
        raise NotImplementedError(f"the interpreter does not know the instruction {instruction}")
    write, addresses, read = machine.write(target, kind), machine.addresses(place), machine.read(source, kind)
    return lambda active: write(active, machine.shared.add(active, addresses(active), read(active)))


def _cp(machine: Machine, instruction: Instruction) -> Execute:
    """Copy 16 bytes to shared memory: they come when the thread waits for them."""
    if instruction.name == "cp.async.wait_all":
        return lambda active: _bring_copies(machine, active)
    to, of, size = instruction.operands
    assert size == "16", instruction
    to_shared, of_global = machine.addresses(to), machine.addresses(of)
    return lambda active: machine.copies.append((active, to_shared(active), of_global(active)))


def _bring_copies(machine: Machine, active: Active) -> None:
    left = []
    for threads, to, of in machine.copies:
        mine = np.isin(threads, active)
        array, at = machine.memory.numbers(of[mine], np.uint32, 4)
        machine.shared.write(threads[mine], to[mine], array[at])
        if not mine.all():
            left.append((threads[~mine], to[~mine], of[~mine]))
    machine.copies = left


def _bar(machine: Machine, instruction: Instruction) -> Execute:
    if instruction.is_barrier_of_block:
        return machine.wait_for_block
    masks = machine.read(instruction.operands[0], "u32")

    def meet(ready: Active) -> None:
        of_ready = masks(ready)
        for warp, mask in {*zip((ready // WARP).tolist(), of_ready.tolist(), strict=True)}:
            machine.shared.meet(ready[(ready // WARP == warp) & (of_ready == mask)])

    return lambda active: machine.wait_for_warp(active, masks(active).astype(np.int64), meet)


def _shfl(machine: Machine, instruction: Instruction) -> Execute:
    """Read another lane's number; memory is not ordered by that."""
    _, _, mode, kind = instruction.name.split(".")
    *targets, a, b, c, mask = instruction.operands
    write, masks, read = machine.write(targets[0], kind), machine.read(mask, "u32"), machine.read(a, kind)
    which, clamp = machine.read(b, "u32"), machine.read(c, "u32")
    if mode not in ("bfly", "idx"):
        raise NotImplementedError(f"the interpreter does not know the instruction {instruction}")

    def exchange(ready: Active) -> None:
        assert (clamp(ready) == WARP - 1).all(), "lanes are not cut into segments"
        lanes = which(ready) % WARP
        source = ready % WARP ^ lanes if mode == "bfly" else lanes.astype(np.int64)
        if not (masks(ready) >> source & 1).all():
            raise KernelError("a number is read of a lane that does not take part")
        write(ready, read(ready // WARP * WARP + source))

    return lambda active: machine.wait_for_warp(active, masks(active).astype(np.int64), exchange)


def _vote(machine: Machine, instruction: Instruction) -> Execute:
    target, predicate, mask = instruction.operands
    write, read, masks = machine.write(target, "u32"), machine.read(predicate, "pred"), machine.read(mask, "u32")

    def count(ready: Active) -> None:
        bits = np.zeros(ready[-1] // WARP + 1, np.int64)
        np.add.at(bits, ready // WARP, read(ready).astype(np.int64) << ready % WARP)
        write(ready, bits[ready // WARP] & masks(ready))

    return lambda active: machine.wait_for_warp(active, masks(active).astype(np.int64), count)


def _ldmatrix(machine: Machine, instruction: Instruction) -> Execute:
    *targets, source = instruction.operands
    addresses, writes = machine.addresses(source), [machine.write(target, "u32") for target in targets]

    def load(ready: Active) -> None:
        # Of each warp: matrix, row and pair; lanes get pairs in this order.
        pairs = machine.shared.read(ready, addresses(ready), np.uint32, 4).reshape(-1, 4, WARP)
        for matrix, write in enumerate(writes):
            write(ready, pairs[:, matrix].ravel())

    return lambda active: machine.wait_for_warp(active, np.full(len(active), _ALL), load)


def _mma(machine: Machine, instruction: Instruction) -> Execute:
    if instruction.name != "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32":
        raise NotImplementedError(f"the interpreter does not know the instruction {instruction}")
    operands = instruction.operands
    writes = [machine.write(operand, "f32") for operand in operands[:4]]
    halves = [machine.read(operand, "b32") for operand in operands[4:10]]
    sums = [machine.read(operand, "f32") for operand in operands[10:]]

    def multiply(ready: Active) -> None:
        def of_warps(reads: list[Any]) -> Numbers:
            return np.stack([read(ready) for read in reads], axis=-1).reshape(-1, WARP, len(reads))

        result = multiply_matrices(of_warps(halves[:4]), of_warps(halves[4:]), of_warps(sums))
        for i, write in enumerate(writes):
            write(ready, result[..., i].ravel())

    return lambda active: machine.wait_for_warp(active, np.full(len(active), _ALL), multiply)


_MAKERS: dict[str, Callable[[Machine, Instruction], Execute]] = {
    "mov": _mov,
    "setp": _setp,
    "selp": _selp,
    "cvt": _cvt,
    "bra": _bra,
    "ret": _ret,
    "ld": _ld,
    "st": _st,
    "red": _red,
    "atom": _atom,
    "cp": _cp,
    "bar": _bar,
    "shfl": _shfl,
    "vote": _vote,
    "ldmatrix": _ldmatrix,
    "mma": _mma,
}
