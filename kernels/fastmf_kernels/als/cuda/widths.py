"""How wide rows are on a GPU for each solver, and the warnings of what the CPU solves instead."""

from fastmf_kernels._cuda.notes import say_once
from fastmf_kernels._cuda.rows import padded_width
from fastmf_kernels.als.arrays import EXACTLY, Solver, block_width, longest_row
from fastmf_kernels.als.cuda import cg, subspace

WIDEST_EXACT = 128


def simplified(solver: Solver, n_factors: int) -> Solver:
    """Return how rows are solved: one block of all coordinates is solved exactly."""
    is_one_block = solver.name == "subspace" and block_width(solver.setting) >= n_factors
    return EXACTLY if is_one_block else solver


def width_for(n_factors: int, solver: Solver) -> int:
    """Return how many numbers a row has on the device, or 0 if the CPU solves it.

    96, too, where that spares matrices half of their products: 65 are common, 64 factors and a bias.
    """
    solver = simplified(solver, n_factors)
    width = 96 if solver.name == "cholesky" and 64 < n_factors <= 96 else padded_width(n_factors)
    return width if width <= _widest(solver) else 0


def _widest(solver: Solver) -> int:
    if solver.name == "subspace":
        return subspace.WIDEST if block_width(solver.setting) in subspace.BLOCKS else 0
    return {"cholesky": WIDEST_EXACT, "cg": cg.WIDEST}.get(solver.name, 0)


def say_why(n_factors: int, solver: Solver) -> None:
    """Say that the CPU solves all rows, and what to do about it."""
    solver = simplified(solver, n_factors)
    if solver.name == "nonnegative":
        text = "with nonnegative=True is solved on the CPU: the CUDA kernels have no solver for it; leave it out"
    elif solver.name == "subspace" and _widest(solver) == 0:
        blocks = ", ".join(str(width) for width in subspace.BLOCKS)
        text = f'with solver "subspace" and block_size={solver.setting} is solved on the CPU: the CUDA kernels work on '
        text += f"blocks of {blocks} factors; choose one of these"
    else:
        most = _widest(solver)
        text = f'with rows of {n_factors} factors and biases and solver "{solver.name}" is solved on the CPU: the CUDA '
        text += f"kernels hold rows of up to {most}; choose fewer factors"
        text += ', or solver "cg"' if solver.name == "cholesky" and n_factors <= cg.WIDEST else ""
    say_once(f"als {solver.name} {_widest(solver)}", f"ALS {text}")


def say_why_added() -> None:
    """Say that the CPU solves all rows of a model with features, and what to do about it."""
    say_once(
        "als added",
        "ALS with features is solved on the CPU: the CUDA kernels know no prior means; leave the features out, or "
        'train with backend "cpu"',
    )


def say_why_rows(n_rows: int, n_factors: int) -> None:
    """Say that the CPU solves some rows, and what to do about it."""
    where, advice = "their equations are singular", "raise regularization"
    if n_factors > WIDEST_EXACT:
        where += f", or they have more than {longest_row(n_factors)} ratings"
        advice += f", or choose at most {WIDEST_EXACT} factors"
    say_once(
        f"als rows {n_factors > WIDEST_EXACT}",
        f"ALS solves rows on the CPU ({n_rows} in this half sweep) where {where}: the CUDA kernels factorise "
        f"regular matrices of up to {WIDEST_EXACT} factors; {advice}",
    )
