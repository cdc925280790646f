"""Compare all files of models with their manifests.

example:
  fastmf verify model

Every file is read in full, and every damaged one is named. `fastmf.load` alone checks shapes, ids, indices and finite
factors, but not every byte.
"""

import argparse
import sys
from typing import Any

from fastmf.cli.options import add_output_options, print_result
from fastmf.common.json_text import to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model directories")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Read the models, print what was compared, and name what is damaged."""
    results = [_verify(path) for path in parsed.models]
    if parsed.json:
        print(to_json(results[0] if len(results) == 1 else results))
    for result in [] if parsed.json else results:
        for problem in result["problems"]:
            print(f"fastmf verify: {problem}", file=sys.stderr)
        if not result["problems"]:
            print_result({name: value for name, value in result.items() if name != "problems"}, as_json=False)
    return 1 if any(result["problems"] for result in results) else 0


def _verify(path: str) -> dict[str, Any]:
    from fastmf.errors import ModelError
    from fastmf.keeping.model_directory import read_manifest
    from fastmf.models.loading import find_damage

    problems = find_damage(path)
    try:
        files = read_manifest(path).files
    except ModelError:
        files = {}
    n_bytes = sum(file.n_bytes for file in files.values())
    return {"model": path, "files": len(files), "bytes": n_bytes, "damaged": len(problems), "problems": problems}
