"""The loop of `fastmf_kernels.sgd.cpu.step_sizes` as explicit vector code; see `fastmf_kernels.linalg.panels_simd`."""

from llvmlite import ir  # noqa: TID251

from fastmf_kernels._builder import Builder


def step_sizes(
    b: Builder,
    user_accumulator: ir.Value,
    item_accumulator: ir.Value,
    user_scale: ir.Value,
    item_scale: ir.Value,
    rates: ir.Value,
) -> ir.Value:
    """Emit `step_sizes.step_sizes`: user and item side by side, with one square root, and a division for each kind.

    All four in one division would be slower: taking numbers out of vectors costs more than a division.
    """
    roots, scales = b.roots(b.four([user_accumulator, item_accumulator])), b.four([user_scale, item_scale])
    keeps, damped = [], []
    for kind in range(2):
        damping = b.ir.fmul(scales, b.floats(rates, 4, 2 + kind))
        inverse = b.inverses(b.ir.fadd(roots, damping))
        keep, rate = b.ir.fsub(b.four([]), b.ir.fmul(inverse, damping)), b.ir.fmul(inverse, b.floats(rates, 4, kind))
        keeps += [b.element(keep, side) for side in range(2)]
        damped += [b.element(rate, side) for side in range(2)]
    return b.together(keeps + damped)
