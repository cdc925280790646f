"""The libraries that fastmf is raced against. None is needed: those that are installed take part."""

import importlib.metadata
import os
from pathlib import Path

# Name on the command line: distribution. LIBMF is a program, named by `--libmf`.
DISTRIBUTIONS = {
    "implicit": "implicit",
    "faiss": "faiss-cpu",
    "surprise": "scikit-surprise",
    "cmfrec": "cmfrec",
    "irspack": "irspack",
    "lightfm": "lightfm",
}
PEERS = (*DISTRIBUTIONS, "libmf")


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_there(peer: str, libmf: Path | None) -> bool:
    """Whether a peer can take part."""
    if peer == "libmf":
        return libmf is not None and os.access(libmf, os.X_OK) and libmf.is_file()
    return installed_version(DISTRIBUTIONS[peer]) is not None


def explain_absence(peer: str, libmf: Path | None) -> str:
    """Say why a peer cannot take part, and what to do."""
    if peer not in PEERS:
        return f"there is no peer {peer!r}; expected some of {', '.join(PEERS)}"
    if peer != "libmf":
        return f"{peer} is not installed; run: pip install {DISTRIBUTIONS[peer]}"
    if libmf is None:
        return (
            "libmf takes part only where --libmf names its program mf-train (github.com/cjlin1/libmf, built with AVX)"
        )
    return f"{libmf} is no program that can be run; --libmf expects the path of mf-train"
