"""``fastmf bench`` and ``python -m fastmf_bench``."""

import argparse
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fastmf.backend import get_backend
from fastmf.cli.options import positive_integer
from fastmf.common.files import new_file, require_absent
from fastmf.errors import FastMFError, ParameterError
from fastmf_bench import cases, machine, peers, readme, report, tables, targets
from fastmf_bench.problems import SHAPES, Shape
from fastmf_bench.results import Run
from fastmf_bench.session import Options, Session
from fastmf_bench.suites import GPU_SUITES, SUITES, Suite, ceilings, cold, cuda, defaults, fold_in, onboarding, quality

_DESCRIPTION = """\
Benchmarks of fastmf on this machine. Every kernel is first held against its NumPy reference; one that is wrong is not
timed. Contestants run in processes of their own, lap by lap in turn, with the same threads and the same data.

suites:
{suites}

with --device cuda:
{gpu_suites}

Without a name all suites run. Instead of suites:
  report RESULTS... -o REPORT.html    one page with plots, from the files that --output wrote
  targets [RESULTS...]                what fastmf set out to reach, and whether it does: measured now, or in RESULTS
  readme RESULTS --readme README.md   bring the table of performance, or of cold items, in a Markdown file up to date

example:
  fastmf bench sgd als --quick
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["report"]:
            return _report(given[1:])
        if given[:1] == ["readme"]:
            return _readme(given[1:])
        if given[:1] == ["targets"]:
            return _targets(given[1:])
        return _suites(given)
    except KeyboardInterrupt:
        print("fastmf bench: interrupted; the same call starts afresh", file=sys.stderr)
        return 130
    except (FastMFError, OSError) as error:
        words = error.in_words_of({"overwrite": "--overwrite"}.get) if isinstance(error, FastMFError) else error
        print(f"fastmf bench: {words}", file=sys.stderr)
        return 2 if isinstance(error, ParameterError) else 1


def _suites(given: list[str]) -> int:
    parsed = _suite_parser().parse_args(given)
    suites = GPU_SUITES if parsed.device == "cuda" else SUITES
    if suites is GPU_SUITES:
        get_backend("cuda")  # says what is missing
    known = {name: suites[name] for name in parsed.suites or suites if name in suites}
    _require_absent(parsed)
    run = _measure(parsed, known, given)
    for name in parsed.suites:
        if name not in suites:
            _note(run, f"there is no suite {name!r}; expected some of {', '.join(suites)}")
    return _finish(run, parsed, tables.of_run(run))


def _targets(given: list[str]) -> int:
    files = [Path(name) for name in given if name.endswith(".json") and not name.startswith("-")]
    if files and len(files) == len(given):
        runs = [Run.read(path) for path in files]
        print(tables.of_targets(targets.check(runs)))
        return 0
    parsed = _suite_parser("targets").parse_args(given)
    if parsed.suites:
        raise ParameterError(
            f"{parsed.suites[0]!r} is no file of results; expected files that end in .json, or options"
        )
    _require_absent(parsed)
    run = _measure(parsed, SUITES, ["targets", *given])
    return _finish(run, parsed, tables.of_targets(targets.check([run])))


def _report(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="fastmf bench report", description="One page of plots, readable offline.")
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="files that --output wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT.html", help="the page to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it exists")
    parsed = parser.parse_args(given)
    page = report.make_page([Run.read(path) for path in parsed.results])
    with new_file(parsed.output, parsed.overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return 0


def _readme(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="fastmf bench readme", description="Rewrite tables of results in Markdown.")
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="files that --output wrote; of a task that several have, the first counts",
    )
    parser.add_argument("--readme", type=Path, required=True, metavar="README.md", help="the file to bring up to date")
    parsed = parser.parse_args(given)
    runs = [Run.read(path) for path in parsed.results]
    text = readme.updated(parsed.readme.read_text(encoding="utf-8"), runs)
    with new_file(parsed.readme, True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return 0


def _suite_parser(name: str = "") -> argparse.ArgumentParser:
    listed, on_gpu = (
        "\n".join(f"  {name:<10} {suite.summary}" for name, suite in suites.items()) for suites in (SUITES, GPU_SUITES)
    )
    parser = argparse.ArgumentParser(
        prog=f"fastmf bench {name}".strip(),
        description=_DESCRIPTION.format(suites=listed, gpu_suites=on_gpu),
        epilog=f"{quality.__doc__}\n{defaults.__doc__}\n{fold_in.__doc__}\n{onboarding.__doc__}\n{cold.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller problems: under three minutes on two cores")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the results to a JSON file")
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")
    running = parser.add_argument_group("running")
    running.add_argument(
        "--threads", type=positive_integer, metavar="N", help="of every contestant (default: all cores)"
    )
    running.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what is measured (default: cpu)")
    running.add_argument("--laps", type=positive_integer, default=5, metavar="N", help="timed laps (default: 5)")
    running.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="begin nothing more after so long (default: never)"
    )
    running.add_argument("--factors", type=positive_integer, nargs="+", metavar="K", help="numbers of factors to try")
    running.add_argument("--seed", type=int, default=0, help="of generated problems (default: 0)")
    running.add_argument("--keep", type=Path, metavar="DIR", help="keep generated problems here, and use them again")
    _add_problem_options(parser)
    return parser


def _add_problem_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("problems")
    group.add_argument("--shape", nargs="+", choices=sorted(SHAPES), help="shapes to train on (default: ml-10m)")
    group.add_argument("--users", type=positive_integer, metavar="N", help="a shape of one's own, with the next two")
    group.add_argument("--items", type=positive_integer, metavar="N", help="its items")
    group.add_argument("--ratings", type=positive_integer, metavar="N", help="its ratings")
    group.add_argument("--file", type=Path, metavar="PARQUET", help="train on a file of ratings instead")
    group.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="real data sets, for quality, defaults, fold-in, onboarding, cold and topk; see below",
    )
    group.add_argument(
        "--sets",
        nargs="+",
        metavar="NAME",
        help="data sets of the suites defaults and cold (default: all there), fold-in and onboarding",
    )
    group.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(range(5)),
        help="of the suite quality (default: 0-4); defaults, fold-in, onboarding and cold take the first",
    )
    others = parser.add_argument_group("peers")
    others.add_argument("--peers", nargs="*", metavar="NAME", help=f"{', '.join(peers.PEERS)} (default: the installed)")
    others.add_argument("--libmf", type=Path, metavar="PATH", help="LIBMF's program mf-train")


def _without_folders(argument: str) -> str:
    """Keep the last part of an absolute path: folders of one machine mean nothing on another."""
    option, equals, value = argument.rpartition("=")
    return option + equals + Path(value).name if Path(value).is_absolute() else argument


def _measure(parsed: argparse.Namespace, suites: Mapping[str, Suite], given: list[str]) -> Run:
    from fastmf_kernels._jit import resolve_threads

    started = time.perf_counter()
    n_threads = resolve_threads(parsed.threads)
    run = Run(shlex.join(["fastmf", "bench", *map(_without_folders, given)]), machine.describe(), n_threads)
    with ExitStack() as stack:
        folder = parsed.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastmf-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        session = Session(_options(parsed, folder.resolve(), n_threads, run), run, partial(_keep, run, parsed))
        if suites:
            (ceilings.run if parsed.device == "cpu" else cuda.run_ceilings)(session)
        for name, suite in suites.items():
            if _is_proven(session, name, suite, parsed.device):
                _run_suite(session, name, suite)
    run.seconds = time.perf_counter() - started
    return run


def _run_suite(session: Session, name: str, suite: Suite) -> None:
    try:
        suite.run(session)
    except Exception as error:
        # An error in one suite must not lose the results of the others.
        kind = "" if isinstance(error, FastMFError) else f"{type(error).__name__}: "
        session.note(f"{name}: given up: {kind}{error}")


def _is_proven(session: Session, name: str, suite: Suite, device: str) -> bool:
    """Hold the kernels of a suite against their references, once a run; say which are wrong."""
    proofs = session.run.proofs
    for operation in suite.operations:
        if operation not in proofs:
            session.say(f"proving {operation} against its NumPy reference")
            try:
                # On a GPU nobody asks for a number of threads.
                cases.prove(operation, (device,), cases.THREADS if device == "cpu" else ())
                proofs[operation] = ""
            except cases.WrongKernelError as error:
                proofs[operation] = str(error)
    wrong = [proofs[operation] for operation in suite.operations if proofs[operation]]
    if wrong:
        session.note(f"{name}: not timed, because a kernel is wrong: {wrong[0]}")
    return not wrong


def _options(parsed: argparse.Namespace, folder: Path, n_threads: int, run: Run) -> Options:
    sizes = parsed.users, parsed.items, parsed.ratings
    if any(sizes) and not all(sizes):
        raise ParameterError("a shape of one's own takes all of --users, --items and --ratings")
    shapes = [SHAPES[name] for name in parsed.shape or ()]
    if all(sizes):
        shapes.append(Shape("own", *sizes))
    wanted = peers.PEERS if parsed.peers is None else parsed.peers
    there = [peer for peer in wanted if peer in peers.PEERS and peers.is_there(peer, parsed.libmf)]
    for peer in wanted:
        if peer not in there:
            _explain(run, peer, parsed)
    libmf = None if parsed.libmf is None else parsed.libmf.resolve()  # without a directory it would be sought on PATH
    return Options(
        folder,
        n_threads,
        parsed.laps,
        parsed.seed,
        parsed.quick,
        tuple(parsed.factors or ()),
        tuple(shapes),
        parsed.file,
        tuple(there),
        libmf,
        parsed.data,
        tuple(parsed.seeds),
        parsed.minutes,
        tuple(parsed.suites),
        tuple(parsed.sets or ()),
    )


def _explain(run: Run, peer: str, parsed: argparse.Namespace) -> None:
    """Say why a peer stays away; that is a failure where it was asked for."""
    line = peers.explain_absence(peer, parsed.libmf)
    if parsed.peers is not None or (peer == "libmf" and parsed.libmf is not None):
        _note(run, line)
    else:
        print(f"left out: {line}", file=sys.stderr)


def _note(run: Run, line: str) -> None:
    run.problems.append(line)
    print(line, file=sys.stderr)


def _require_absent(parsed: argparse.Namespace) -> None:
    """Refuse to replace a file of results before anything is measured, not after."""
    if parsed.output is not None:
        require_absent(parsed.output, parsed.overwrite)


def _keep(run: Run, parsed: argparse.Namespace) -> None:
    """Write what has been measured so far: a run that is cut short leaves its results behind."""
    if parsed.output is not None:
        with new_file(parsed.output, overwrite=True) as temporary:
            temporary.write_text(run.to_json(), encoding="utf-8")


def _finish(run: Run, parsed: argparse.Namespace, table: str) -> int:
    """Write and print what was measured; the status is 1 if anything could not be."""
    _keep(run, parsed)
    print(run.to_json() if parsed.json else f"{table}\n", end="")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
