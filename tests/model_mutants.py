"""A worker of `test_fuzz_models.py`: changes a model directory, uses it, and counts what happens.

Usage: ``model_mutants.py FOLDER FIRST LAST``. Mutant number n is the same in every run. The last line of the output has
the counts; every line before it names the mutant that comes next, so that a crash has a name.
"""

import copy
import hashlib
import json
import os
import random
import resource
import shutil
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import fastmf
from fastmf.errors import FastMFError, ModelError, QualityWarning
from fastmf.keeping import manifest as manifests
from fastmf.keeping.manifest import CARD, MANIFEST

Mutation = Callable[[random.Random, Path], None]
# Products of such factors overflow float32; what is left of their scores depends on the order of sums.
HUGE = 1e6
# What the process may allocate beside what it has when the mutants begin, and how much more of it may be in memory.
MOST_ALLOCATED, MOST_RESIDENT = 1 << 30, 200 << 20
MOST_READ = 1 << 24
KINDS = ("numbers", "names", "state", "halves", "stars", "features")
INTERESTING = (0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 19, 20, 24, 25, 160)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2.5, 1e300, -1e39, float("nan"), float("inf"), 10**400, 2**63, 24, 26),
    *("", "x", "../x", "ALS", "SGD", "\ud800", [], [0], [[]], {}, {"a": 1}, {"bytes": 3, "sha256": "0" * 64}),
)


def make_model(folder: Path, kind: str) -> None:
    ratings = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    if kind == "names":
        users = pa.array([f"Zoë {n:02}" for n in range(25)])
        ratings = fastmf.Interactions(ratings.users, ratings.items, ratings.ratings, None, users, ratings.item_ids)
    described: dict[str, pa.Table] = {}
    if kind == "stars":  # other numbers than 1, so that they have a file, and state that is a table of factors
        model: Any = fastmf.SVDpp(n_factors=3, n_epochs=2)
    else:
        model = (fastmf.SGD if kind == "state" else fastmf.ALS)(n_factors=3, n_epochs=2)
    if kind == "features":
        model.set_params(item_feature_regularization=0.5, user_feature_regularization=0.5)
        described = {"item_features": of_items(ratings.item_ids), "user_features": of_users(ratings.user_ids)}
    model.fit(ratings, **described).save(folder, factor_dtype="float16" if kind in ("halves", "stars") else "float32")


def of_items(ids: pa.Array) -> pa.Table:
    return pa.table({"item_id": ids, "genre": [f"g{n % 3}" for n in range(len(ids))]})


def of_users(ids: pa.Array) -> pa.Table:
    n = len(ids)
    return pa.table({"user_id": ids, "age": [20.0 + user % 7 for user in range(n)], "town": ["a", *"b" * (n - 1)]})


def flip_bits(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8))):
        # The first bytes say what the rest is.
        place = rng.randrange(min(len(content), 200) if rng.random() < 0.5 else len(content))
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def write_bytes(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place : place + rng.choice((1, 4, 8, 64))] = rng.randbytes(rng.choice((1, 4, 8, 64)))
    path.write_bytes(content)


def set_offset(rng: random.Random, folder: Path) -> None:
    """Overwrite an aligned integer of a file of ids or names: an offset, a length, a count."""
    path = rng.choice(sorted(folder.glob("*.arrow")))
    content = bytearray(path.read_bytes())
    size, kind = rng.choice(((4, "<i"), (8, "<q")))
    place = size * rng.randrange(len(content) // size)
    struct.pack_into(kind, content, place, rng.choice([n for n in INTERESTING if abs(n) < 2 ** (8 * size - 1)]))
    path.write_bytes(content)


def change_length(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    content = path.read_bytes()
    longer = content + rng.randbytes(rng.randrange(1, 100))
    path.write_bytes(rng.choice((content[: rng.randrange(len(content))], longer, b"", content * 2)))


def set_number(rng: random.Random, folder: Path) -> None:
    """Overwrite one number of an array with one that means trouble."""
    path = rng.choice(sorted(folder.glob("*.npy")))
    array = np.load(path)
    if array.size:
        place = rng.randrange(array.size)
        if array.dtype.kind == "f":
            largest = float(np.finfo(array.dtype).max)
            value = rng.choice((np.nan, np.inf, -np.inf, largest, -largest, 0, 1e-40))
        else:
            value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randrange(-2, 30)
        array.reshape(-1)[place] = np.array(value).astype(array.dtype)
    np.save(path, array)


def replace_array(rng: random.Random, folder: Path) -> None:
    """Write an array of another shape, type or order."""
    path = rng.choice(sorted(folder.glob("*.npy")))
    array = np.load(path)
    changes: list[Callable[[], Any]] = [
        lambda: array[: rng.randrange(len(array))],
        lambda: array.astype(rng.choice((np.float64, np.int64, np.int32, np.float32, np.float16, np.uint32))),
        lambda: array.astype(array.dtype.newbyteorder()),
        lambda: np.asfortranarray(array),
        lambda: array[..., None],
        lambda: array.reshape(-1)[::-1].reshape(array.shape),
        lambda: np.sort(array, axis=None).reshape(array.shape),
        lambda: np.concatenate([array, array]),
        lambda: np.array(array.tolist(), object),
    ]
    np.save(path, rng.choice(changes)(), allow_pickle=True)


def replace_header(rng: random.Random, folder: Path) -> None:
    """Write a header of NumPy's format that says something else of the same bytes."""
    path = rng.choice(sorted(folder.glob("*.npy")))
    content = path.read_bytes()
    (length,) = struct.unpack("<H", content[8:10])
    shape = tuple(rng.choice(INTERESTING) for _ in range(rng.randrange(4)))
    kind = rng.choice(("<f4", "<i4", "<i8", "|O", "<f8", "<M8[ns]", "|V8", "|S4", "f"))
    header = repr({"descr": kind, "fortran_order": rng.random() < 0.2, "shape": shape})
    header = rng.choice((header, header + ", ", "(" * 90, header[:-1], "", f"{header}{header}", "[" * 3000))
    body = header.encode()[:60_000].ljust(length - 1) + b"\n"
    path.write_bytes(content[:8] + struct.pack("<H", len(body)) + body + content[10 + length :])


def replace_ids(rng: random.Random, folder: Path) -> None:
    path = rng.choice(sorted(folder.glob("*.arrow")))
    ids = pa.ipc.open_file(path).read_all()["id"].to_pylist()
    n = len(ids)
    changes: list[Callable[[], Any]] = [
        lambda: pa.array(ids[::-1]),
        lambda: pa.array([ids[0], *ids[:-1]]),
        lambda: pa.array([None, *ids[1:]]),
        lambda: pa.array(ids[:-1]),
        lambda: pa.array(range(n), pa.int32()),
        lambda: pa.array(range(n), pa.float64()),
        lambda: pa.array(range(n), pa.int64()),
        lambda: pa.array([str(i) for i in ids]).dictionary_encode(),
        lambda: pa.array([[i] for i in ids]),
        lambda: pa.array(sorted(str(i) for i in ids), pa.large_string()),
        lambda: bad_strings(n, [0, *([3] * n)], b"\xff\xfe\xfd"),
    ]
    column = rng.choice(changes)()
    chunks = pa.chunked_array([column]) if rng.random() < 0.7 else pa.chunked_array([column[:7], column[7:]])
    table = pa.table({"id" if rng.random() < 0.9 else "ids": chunks})
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, None, "zstd", "lz4")))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)


def bad_strings(n: int, offsets: list[int], text: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(struct.pack(f"<{n + 1}i", *offsets)), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), n, buffers)


def change_manifest(rng: random.Random, folder: Path) -> None:
    """Set an entry of the manifest, at any depth, to another value, or take it out."""
    content = json.loads((folder / MANIFEST).read_text())
    node, places = content, []
    while isinstance(node, (dict, list)) and node:
        places.append((node, rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))))
        node = places[-1][0][places[-1][1]]
    container, key = rng.choice(places)
    action = rng.random()
    if action < 0.2:
        del container[key]
    elif action < 0.3 and isinstance(container, dict):
        container[rng.choice(("x", "../y", "seen.npy", "recs.parquet"))] = container.pop(key)
    else:
        container[key] = rng.choice(VALUES)
    (folder / MANIFEST).write_text(json.dumps(content))


def change_text(rng: random.Random, folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    place = rng.randrange(len(text))
    letters = rng.choice(("", "9", "-", '"', "}", "[" * 100_000, "null", "NaN", "1e999", "\x00", "é"))
    (folder / MANIFEST).write_text(text[:place] + letters + text[place + rng.randrange(3) :])


def claim_size(rng: random.Random, folder: Path) -> None:
    """Make a file as large as its header, or the manifest, claims: it takes no room on the disk."""
    path = any_file(rng, folder)
    n_bytes = rng.choice((10**6, 10**9, 10**12))
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r")
        n_rows = n_bytes // max(1, array.itemsize * int(np.prod(array.shape[1:])))
        shape = (n_rows, *array.shape[1:])
        with path.open("wb") as file:
            header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            n_bytes = file.tell() + int(np.prod(shape, dtype=object)) * array.itemsize
        content = json.loads((folder / MANIFEST).read_text())
        side = "n_users" if path.name.startswith("user") or path.stem == "seen_indptr" else "n_items"
        if path.stem not in ("seen_indices", "seen_values"):
            content[side] = min(n_rows - (path.stem == "seen_indptr"), 2**31 - 1)
        (folder / MANIFEST).write_text(json.dumps(content))
    os.truncate(path, n_bytes)


def add_something(rng: random.Random, folder: Path) -> None:
    """Put something into the directory that is not of the model, or not a file."""
    name = rng.choice(("notes.txt", "user_factors.npy.bak", "x/", CARD, any_file(rng, folder).name))
    path = folder / name
    path.unlink(missing_ok=True)
    action = rng.randrange(5)
    if action == 0:
        os.mkfifo(path)
    elif action == 1:
        path.mkdir()
    elif action == 2:
        path.symlink_to(
            rng.choice(("/dev/zero", "/dev/null", "/etc/hostname", "..", name, "nowhere", "item_ids.arrow"))
        )
    else:
        path.write_bytes(rng.randbytes(rng.randrange(300)))


def change_folder(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    other = any_file(rng, folder)
    action = rng.randrange(4)
    if action == 0:
        path.unlink()
    elif action == 1:
        path.unlink()
        path.mkdir()
    elif action == 2:
        path.write_bytes(other.read_bytes())
    else:
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, write_bytes, change_length, set_number, set_number, replace_array, replace_header),
    *(set_offset, replace_ids, change_manifest, change_manifest, change_text, change_folder),
    *(claim_size, add_something),
)


def any_file(rng: random.Random, folder: Path) -> Path:
    return rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def seal(folder: Path) -> None:
    """Let the manifest say what the files are now, as somebody does who means harm."""
    if size_of(folder / MANIFEST) > MOST_READ:
        return
    try:
        content = json.loads((folder / MANIFEST).read_text() if (folder / MANIFEST).is_file() else "")
        for name, entry in content["files"].items():
            path = folder / name
            entry["bytes"] = size_of(path)
            if 0 < size_of(path) < MOST_READ:
                entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        content.pop("manifest_sha256", None)
        manifests.write(folder, content)
    except (ValueError, OSError, AttributeError, KeyError, TypeError, RecursionError):
        pass


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


class Answers(NamedTuple):
    ids: list[Any]
    numbers: list[Any]

    def agree_with(self, other: "Answers") -> bool:
        """Whether ids are the same, and numbers as near as float32 has them: backends sum in another order."""
        return self.ids == other.ids and all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4)
            for a, b in zip(self.numbers, other.numbers, strict=True)
        )


def answers(model: Any) -> Answers:
    k = min(5, len(model.item_ids))
    table = model.recommend(k=k).to_arrow()
    some = model.recommend(model.user_ids[:3], k=k, exclude=None)
    item = model.item_ids[:1]
    predicted = model.predict(model.user_ids, item.take(pa.array([0] * len(model.user_ids))))
    ids = [table[name].to_pylist() for name in ("user_id", "rank", "item_id")] + [some.items.tolist()]
    if k > 1:
        ids.append(model.similar_items(item, k - 1).to_arrow().column(2).to_pylist())
        assert set(ids[-1]) <= set(model.item_ids.to_pylist())
    assert set(ids[2]) <= set(model.item_ids.to_pylist())
    return Answers(ids, [table["score"].to_numpy(), some.scores, predicted])


def use_further(model: Any) -> None:
    """Call what reads the rest of a directory: state, training ratings, figures of the data. It may refuse."""
    more = fastmf.testing.power_law(27, 22, 40, n_factors=2, seed=1)
    uses: list[Callable[[], Any]] = [
        lambda: model.fold_in(more),
        lambda: model.recommend_for(more, k=2),
        lambda: model.recommend_for(None, k=2, features=of_users(pa.array([100, 101]))),
        lambda: model.fold_in(None, "item", features=of_items(pa.array([100, 101]))),
        lambda: model.explain(model.user_ids[0].as_py(), model.item_ids[0].as_py()),
        lambda: fastmf.evaluate(model, more, k=2),
        lambda: copy.copy(model).set_params(n_epochs=1).partial_fit(more).recommend(k=2),
    ]
    for use in uses:
        with suppress(FastMFError):
            use()


def outcome(folder: Path, original: Answers) -> str:
    try:
        model = fastmf.load(folder)
    except ModelError:
        return "refused at load"
    try:
        found = answers(model)
    except ModelError:
        return "refused at the first use"
    except FastMFError as error:
        return f"refused by {type(error).__name__}"
    use_further(model)
    if found.agree_with(original):
        return "the same answers"
    if any(np.abs(term).max() > HUGE for term in model.fitted.factors):
        return "huge factors, not compared"
    expected = answers(fastmf.load(folder).set_params(backend="reference"))
    if not found.agree_with(expected):
        return "wrong: not what the reference answers"
    return "another model, answered as the reference does"


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return what is in a directory, except for the card: the bytes of files, and what else there is."""

    def content(path: Path) -> bytes | str:
        if path.is_symlink():
            return os.readlink(path)
        return path.read_bytes() if path.is_file() else "no file"

    return {path.name: content(path) for path in folder.iterdir() if path.name != CARD}


def verified(folder: Path, original: Answers, before: dict[str, bytes | str], is_sealed: bool) -> str | None:
    """Say so if `verify` believes files that have changed, or what cannot be used."""
    if any(size_of(path) > MOST_READ for path in folder.iterdir()):
        return None  # it would read terabytes
    try:
        model = fastmf.load(folder, verify=True)
    except FastMFError:
        return None
    if is_sealed:
        try:
            answers(model)
        except ModelError as error:
            return f"wrong: verify believes what the first use refuses: {error}"
        except FastMFError:
            pass  # no items, for example
        return None
    after = contents(folder)
    same_text = json.loads(after[MANIFEST]) == json.loads(before[MANIFEST])
    changed = {name for name in before.keys() | after.keys() if after.get(name) != before.get(name)}
    if changed - ({MANIFEST} if same_text else set()):
        return f"wrong: verify believes {changed}"
    return None if answers(model).agree_with(original) else "wrong: verified, and other answers"


def limit_memory() -> int:
    """Let allocations by what a file claims fail; maps of files do not count. Return what is in memory now."""
    used = 1024 * int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line).split()[1]
    )
    resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_ALLOCATED,) * 2)
    return resident()


def resident() -> int:
    """Return the most that has been in memory, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(folder: Path, first: int, last: int) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "overflow|invalid value", RuntimeWarning)  # factors may be huge
    warnings.simplefilter("ignore", QualityWarning)
    originals = {}
    for kind in KINDS:
        make_model(folder / kind, kind)
        originals[kind] = answers(fastmf.load(folder / kind)), contents(folder / kind)
        use_further(fastmf.load(folder / kind))  # so that nothing is compiled while memory is limited
    counts: Counter[str] = Counter()
    before_all = limit_memory()
    for number in range(first, last):
        rng = random.Random(number)
        kind, mutation, is_sealed = rng.choice(KINDS), rng.choice(MUTATIONS), rng.random() < 0.6
        print(f"mutant {number}: {mutation.__name__} of {kind}, {'sealed' if is_sealed else 'as it is'}", flush=True)
        mutant = folder / "mutant"
        shutil.copytree(folder / kind, mutant)
        mutation(rng, mutant)
        if is_sealed:
            seal(mutant)
        counts[verified(mutant, *originals[kind], is_sealed) or outcome(mutant, originals[kind][0])] += 1
        shutil.rmtree(mutant)
        if resident() > before_all + MOST_RESIDENT:
            counts[f"wrong: {(resident() - before_all) >> 20} MB more in memory after mutant {number}"] += 1
            break
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
