"""``fastmf bench`` and ``python -m fastmf_bench``."""

import argparse
import sys
from collections.abc import Sequence

from fastmf_bench import quality


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one suite and return the exit status."""
    parser = argparse.ArgumentParser(prog="fastmf bench", description="Benchmarks of fastmf on this machine.")
    suites = parser.add_subparsers(title="suites", dest="suite", metavar="SUITE", required=True)
    quality.add_suite(suites)
    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))


if __name__ == "__main__":
    sys.exit(main())
