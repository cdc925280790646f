"""Blocks of threads that execute a program: one instruction at a time, for all threads that have come to it.

Those furthest behind go on first, so that threads come together again behind a branch. Threads of a warp meet where an
instruction names those it waits for, and only there; blocks run one after the other.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.cuda.ptx.memory import GlobalMemory, KernelError, SharedMemory
from tests.cuda.ptx.program import DTYPES, Program

Active = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]
Execute = Callable[[Active], None]
WARP = 32
_ENDED = np.iinfo(np.int64).max
_WAITING = _ENDED - 1


class Machine:
    """Runs a program on blocks of threads.

    Parameters
    ----------
    program : Program
    n_threads : int
        Of a block.
    arguments : dict
        Numbers by the names of parameters.
    memory : GlobalMemory
    make_step : function
        ``make_step(machine, instruction)``: what executes an instruction for threads.
    """

    def __init__(
        self,
        program: Program,
        n_threads: int,
        arguments: dict[str, Any],
        memory: GlobalMemory,
        make_step: Callable[..., Execute],
    ) -> None:
        self.program, self.arguments, self.memory = program, arguments, memory
        self.threads = np.arange(n_threads)
        # Copies to shared memory that are under way: threads, and where to and from.
        self.copies: list[tuple[Active, Numbers, Numbers]] = []
        self.shared = SharedMemory(program.n_shared, n_threads)
        # Where each thread is; where those that wait will go on, and for which of their warp they wait.
        self._places, self._next, self._masks = (np.zeros(n_threads, np.int64) for _ in range(3))
        names = [f"%{kind}.{axis}" for kind in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"]
        self._registers = {name: np.zeros(n_threads, np.uint32) for name in [*names, "%laneid"]}
        self._registers["%tid.x"][:] = self.threads
        self._registers["%ntid.x"][:] = n_threads
        self._registers["%laneid"][:] = self.threads % WARP
        self._steps = [make_step(self, instruction) for instruction in program.instructions]

    def run(self, grid: tuple[int, int, int]) -> None:
        """Run all blocks of a grid."""
        for axis, count in zip("xyz", grid, strict=True):
            self._registers[f"%nctaid.{axis}"][:] = count
        with np.errstate(all="ignore"):
            for block in np.ndindex(grid):
                for axis, number in zip("xyz", block, strict=True):
                    self._registers[f"%ctaid.{axis}"][:] = number
                self._run_block()

    def _run_block(self) -> None:
        self.shared = SharedMemory(self.program.n_shared, len(self.threads))
        self._places[:] = 0
        while (place := int(self._places.min())) != _ENDED:
            if place == _WAITING:
                self._pass_barrier()
            else:
                self._execute(place)
        if self.copies:
            raise KernelError("a block ended before what it copies had come")

    def _execute(self, place: int) -> None:
        instruction, active = self.program.instructions[place], np.flatnonzero(self._places == place)
        self._places[active] = place + 1
        if instruction.guard:
            active = active[self.read(instruction.guard, "pred")(active) != instruction.inverted]
        if len(active):
            try:
                self._steps[place](active)
            except KernelError as fault:
                raise KernelError(f"{fault}: {instruction}, by threads {active.tolist()}") from None

    def jump(self, active: Active, label: str) -> None:
        """Let threads go on elsewhere."""
        self._places[active] = self.program.labels[label]

    def end(self, active: Active) -> None:
        """Let threads end."""
        self._places[active] = _ENDED

    def wait_for_block(self, active: Active) -> None:
        """Let threads wait for all others of the block that have not ended."""
        self._next[active], self._places[active] = self._places[active], _WAITING

    def _pass_barrier(self) -> None:
        waiting = np.flatnonzero(self._places == _WAITING)
        place = int(self._next[waiting[0]])
        instruction = self.program.instructions[place - 1]
        if (self._next[waiting] != place).any() or not instruction.is_barrier_of_block:
            raise KernelError(f"threads wait that never meet: at {instruction}, threads {waiting.tolist()}")
        if instruction.name == "bar.red.or.pred":
            holds = self.read(instruction.operands[2], "pred")(waiting).any()
            self.write(instruction.operands[0], "pred")(waiting, np.full(len(waiting), holds))
        self.shared.meet(waiting)
        self._places[waiting] = place

    def wait_for_warp(self, active: Active, masks: Numbers, act: Execute) -> None:
        """Let threads wait for those of their warp that masks name, and act for all that are there."""
        place = self._places[active[0]]
        if not ((masks >> active % WARP) & 1).all():
            raise KernelError("a thread is not among those that it waits for")
        self._masks[active], self._next[active], self._places[active] = masks, place, _WAITING
        waiting = np.flatnonzero((self._places == _WAITING) & (self._next == place))
        there = np.zeros(len(self.threads) // WARP + 1, np.int64)
        np.add.at(there, waiting // WARP, 1 << waiting % WARP)
        ready = waiting[self._masks[waiting] & ~there[waiting // WARP] == 0]
        if len(ready):
            self._places[ready] = place
            act(ready)

    def read(self, operand: str, kind: str) -> Callable[[Active], Numbers]:
        """Return what reads an operand as numbers of a type."""
        dtype = np.dtype(DTYPES[kind])
        if not self._is_register(operand):
            number = self._constant(operand, dtype)
            return lambda active: np.full(len(active), number)
        register = self._register(operand)
        if register.itemsize != dtype.itemsize:
            return lambda active: register[active].astype(dtype)
        view = register.view(dtype)
        return lambda active: view[active]

    def write(self, operand: str, kind: str) -> Callable[[Active, Numbers], None]:
        """Return what writes numbers of a type to a register, which may have room for more."""
        register, dtype = self._register(operand), np.dtype(DTYPES[kind])
        view = register.view(f"{dtype.kind}{register.itemsize}")

        def write(active: Active, numbers: Numbers) -> None:
            view[active] = numbers

        return write

    def addresses(self, operand: str) -> Callable[[Active], npt.NDArray[np.int64]]:
        """Return what computes ``[base+offset]``."""
        base, _, offset = operand.strip("[] ").partition("+")
        read, distance = self.read(base, f"u{self.n_bits(base)}"), int(offset or 0)
        return lambda active: read(active).astype(np.int64) + distance

    def n_bits(self, operand: str) -> int:
        """Return how many bits a register, or an address, has."""
        return 8 * self._register(operand).itemsize if self._is_register(operand) else 64

    def _is_register(self, operand: str) -> bool:
        return operand.startswith("%") or operand in self.program.registers

    def _register(self, name: str) -> Numbers:
        if name not in self._registers:
            known = self.program.registers
            kind = known[name] if name in known else known[name.rstrip("0123456789")]
            self._registers[name] = np.zeros(len(self.threads), DTYPES[kind])
        return self._registers[name]

    def _constant(self, operand: str, dtype: np.dtype[Any]) -> Any:
        if operand in self.program.shared:
            return dtype.type(self.program.shared[operand])
        if operand.lower().startswith(("0f", "0d")):
            bits = np.array(int(operand[2:], 16), f"u{len(operand) // 2 - 1}")
        else:
            bits = np.array(int(operand.rstrip("U"), 0) % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}")
        return (bits & 1).astype(dtype)[()] if dtype == np.bool_ else bits.view(dtype)[()]
