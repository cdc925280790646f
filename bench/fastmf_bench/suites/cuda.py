"""The suites of a GPU: ceilings, then SGD, ALS and top-k as fractions of them, beside the CPU and other libraries.

Laps are wall seconds. In training the factors are on the device, as they are during `fit`; a search begins with arrays
of the host and ends with arrays of the host. The metric "kernels" is the time of kernels alone, by the device's clock.
"""

from typing import Any, NamedTuple

from fastmf_bench.contest import Contestant
from fastmf_bench.problems import SHAPES, Shape
from fastmf_bench.results import OURS, Measurement
from fastmf_bench.session import Session, Work

COPY, SGEMM, LAUNCH = "GPU copy", "GPU sgemm", "GPU launch of an empty kernel"
HALF, TF32 = "GPU matrix product, float16", "GPU matrix product, TF32"
SGD, SWEEP, SOLVERS = "SGD, an epoch", "iALS, a sweep", ("cholesky", "cg")
SHAPE_NAMES, N_FACTORS = ("ml-20m", "netflix"), (64, 128)
_TABLE_BYTES, _SMALL_TABLE_BYTES = 1 << 31, 1 << 24
_PRODUCT = 8192
_MOST_ON_CPU, _MOST_SORTED = 150_000_000, 2_000
QUALITY, QUALITY_DATA, QUALITY_FACTORS = "quality beside the CPU", "movielens-1m", (64, 128, 256)
_TORCH, _CUPY = "torch, product and topk", "cupy, product and argpartition"


class _Scan(NamedTuple):
    """A search: so many queries in so many items."""

    n_queries: int
    n_items: int
    n_factors: int = 128
    k: int = 100

    def __str__(self) -> str:
        return f"{self.n_queries:,} × {self.n_items:,}"


SCANS = (_Scan(100_000, 1_000_000), _Scan(1_000_000, 1_000_000))


def gather(row_bytes: int, in_cache: bool = False) -> str:
    """Name the ceiling of gathering random rows of this size, from a table that the cache holds or does not."""
    return f"GPU gather of {row_bytes} B rows" + (", table in the cache" if in_cache else "")


def adding(row_bytes: int) -> str:
    """Name the ceiling of adding atomically to random rows of this size."""
    return f"GPU atomic addition to {row_bytes} B rows"


def run_training(session: Session) -> None:
    """Race SGD and iALS on the shapes of known data sets, the largest one last."""
    shapes = [SHAPES["ml-1m"]] if session.options.quick else [SHAPES[name] for name in SHAPE_NAMES]
    for shape in session.options.shapes or shapes:
        with session.noting(shape.name):
            _race_training(session, shape)


def run_top_k(session: Session) -> None:
    """Race searches in many items."""
    _race_scan(session, _Scan(2000, 20_000) if session.options.quick else SCANS[0])


def run_large_top_k(session: Session) -> None:
    """Race searches of as many queries as there are items."""
    _race_scan(session, _Scan(20_000, 20_000) if session.options.quick else SCANS[1])


def run_quality(session: Session) -> None:
    """Train on a GPU and on the CPU with the same settings and data, and compare metrics and recommendations."""
    data = session.options.data
    if data is None:
        session.leave_out("quality", "it needs real data, in the directory that --data names")
        return
    arguments = {
        "splits": str(data / QUALITY_DATA / "splits"),
        "factors": list(session.factors(QUALITY_FACTORS)),
        "n_threads": session.options.n_threads,
    }
    for backend, name in (("cuda", OURS), ("cpu", f"{OURS}, on the CPU")):
        session.say(f"quality: {name}")
        with session.noting(f"quality, {name}"):
            for settings, metrics in session.work("cuda.quality", {**arguments, "backend": backend})["found"]:
                session.add(Measurement("cuda", QUALITY, QUALITY_DATA, name, settings, [], [], 0, figures=metrics))


def _race_training(session: Session, shape: Shape) -> None:
    folder = str(session.options.folder / f"cuda-{shape.name}")
    session.say(f"cuda: making {shape}")
    session.work("cuda.make", {"shape": vars(shape), "folder": folder, "seed": session.options.seed})
    for n_factors in session.factors(N_FACTORS):
        _race_sgd(session, shape, folder, n_factors)
        for solver in SOLVERS:
            _race_als(session, shape, folder, n_factors, solver)


def run_ceilings(session: Session) -> None:
    """Measure what bounds kernels, all in one process."""
    quick = 8 if session.options.quick else 1
    table, size = _TABLE_BYTES // quick, _PRODUCT // quick
    ceilings: list[tuple[str, str, dict[str, Any], Work]] = [
        (COPY, "copy", {"n_bytes": table}, Work(2.0 * table, "bytes"))
    ]
    for row_bytes in (256, 512):
        rows = Work(table / row_bytes, "rows")
        common = {"row_bytes": row_bytes, "n_rows": table // row_bytes}
        ceilings += [
            (gather(row_bytes), "gather", {**common, "n_bytes": table}, rows),
            (gather(row_bytes, in_cache=True), "gather", {**common, "n_bytes": _SMALL_TABLE_BYTES}, rows),
            (adding(row_bytes), "add", {**common, "n_bytes": _SMALL_TABLE_BYTES}, rows),
        ]
    for name, kind in ((SGEMM, "float32"), (TF32, "tf32"), (HALF, "float16")):
        ceilings.append((name, "product", {"size": size, "kind": kind}, Work(2.0 * size**3, "flop")))
    ceilings.append((LAUNCH, "launch", {}, Work(1, "launches")))
    session.say("measuring the ceilings of the GPU")
    asked = [(kind, arguments) for _, kind, arguments, _ in ceilings]
    with session.noting("ceilings"):
        found = session.work("cuda.ceilings", {"asked": asked, "n_laps": session.options.n_laps})["laps"]
        for (name, _, _, work), laps in zip(ceilings, found, strict=True):
            settings = {"n_threads": session.options.n_threads}
            session.add(Measurement("ceilings", name, "", "cupy", settings, laps, [], 0, work.amount, work.unit))


def _both(task: str, shape: Shape, arguments: dict[str, Any]) -> list[Contestant]:
    """Return fastmf on the GPU and, where that takes seconds, on the CPU."""
    contestants = [Contestant(OURS, task, {**arguments, "backend": "cuda"})]
    if shape.n_ratings <= _MOST_ON_CPU:
        contestants.append(Contestant(f"{OURS}, on the CPU", task, {**arguments, "backend": "cpu"}))
    return contestants


def _race_sgd(session: Session, shape: Shape, folder: str, n_factors: int) -> None:
    common = {"folder": folder, "n_factors": n_factors, "n_threads": session.options.n_threads}
    contestants = _both("cuda.sgd", shape, common)
    halves = {**common, "backend": "cuda", "storage": "float16"}
    contestants.append(Contestant(f"{OURS}, in halves", "cuda.sgd", halves))
    # Of a rating's rows the user's stays in registers; the item's is read, and added to.
    work = Work(shape.n_ratings, "ratings", gather(4 * n_factors, in_cache=True), cost=2)
    session.race("cuda", SGD, shape.name, {"n_factors": n_factors}, contestants, work)


def _race_als(session: Session, shape: Shape, folder: str, n_factors: int, solver: str) -> None:
    common = {"folder": folder, "n_factors": n_factors, "solver": solver, "n_threads": session.options.n_threads}
    contestants = _both("cuda.als", shape, common)
    n_rows = shape.n_users + shape.n_items
    if solver == "cholesky":
        contestants.append(
            Contestant("cupyx, batched Cholesky alone", "cuda.posv", {"n_rows": n_rows, "n_factors": n_factors})
        )
        # Each rating is in the sum of two rows, of whose symmetric matrices half is computed; then n³/3 and 2 n² a row.
        flop = 2.0 * shape.n_ratings * n_factors * (n_factors + 1) + n_rows * (n_factors**3 / 3 + 2 * n_factors**2)
        work = Work(flop, "flop", SGEMM)
    else:
        work = Work(2.0 * shape.n_ratings, "rows", gather(4 * n_factors))
    settings = {"n_factors": n_factors, "solver": solver}
    session.race("cuda", SWEEP, shape.name, settings, contestants, work)


def _race_scan(session: Session, scan: _Scan) -> None:
    common = scan._asdict()
    contestants = [
        Contestant(OURS, "cuda.top_k", {**common, "pruning": True}),
        Contestant(f"{OURS}, full scan", "cuda.top_k", {**common, "pruning": False}),
        Contestant(f"{OURS}, full scan in float32", "cuda.top_k", {**common, "pruning": False, "halves": False}),
        Contestant(_TORCH, "cuda.torch_top_k", common),
    ]
    # A full sort of every row: a few of them tell.
    n_sorted = min(scan.n_queries, _MOST_SORTED)
    contestants.append(Contestant(_CUPY, "cuda.cupy_top_k", {**common, "n_queries": n_sorted}))
    work = Work(2.0 * scan.n_queries * scan.n_items * scan.n_factors, "flop", SGEMM)
    settings = {"n_factors": scan.n_factors, "k": scan.k}
    session.race("cuda", f"top-{scan.k}", str(scan), settings, contestants, work)
