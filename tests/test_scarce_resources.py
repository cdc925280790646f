"""Little memory and few threads: an error that says how much a fit needs, or the same answer on fewer threads."""

import errno
import re
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.errors import DataError, FastMFError, OutOfMemoryError
from fastmf.models import FACTOR_MODELS, FactorModel, training
from fastmf.models.descent import DescentModel

RATINGS = fastmf.testing.power_law(60, 40, 700, n_factors=3)

# Factors of 3,000 users and items take 12 kB a factor: with 40,000 of them 480 MB, where 400 MB are left.
LITTLE_MEMORY = """
import resource, sys
import fastmf
from fastmf.models import FACTOR_MODELS

kind = FACTOR_MODELS[sys.argv[1]]
model = kind(n_factors=4, n_epochs=1, n_threads=1).fit(fastmf.testing.power_law(60, 40, 700, n_factors=3))
ratings = fastmf.testing.power_law(2000, 1000, 9000, n_factors=3)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
try:
    model.set_params(n_factors=40_000).fit(ratings)
except MemoryError as error:
    print(type(error).__name__, error)
print(model.predict([1], [1]).shape, len(model.user_ids))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "ALS" else pytest.mark.slow) for name in FACTOR_MODELS]
)
def test_a_fit_that_needs_too_much_memory_says_how_much(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY, name], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    message, after = done.stdout.splitlines()
    sizes = r"40000 factors of 2,000 users and 1,000 items, and 9,000 ratings"
    found = re.match(rf"OutOfMemoryError training {name} \({sizes}\) needs about ([\d.]+) (MB|GB) of memory", message)
    assert found, message
    assert 480 <= float(found[1]) * {"MB": 1, "GB": 1000}[found[2]] < 2000
    assert after == "(1,) 60"  # the model is as it was


KINDS = [pytest.param(kind, id=name) for name, kind in FACTOR_MODELS.items()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")], ids=repr)
def test_want_of_memory_is_one_error_wherever_it_shows(
    kind: type[FactorModel], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kind(n_factors=3, n_epochs=1).fit(RATINGS)
    before = model.user_factors

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(training, "in_huge_pages", fail)
    with pytest.raises(OutOfMemoryError, match="3 factors of 60 users and 40 items, and 700 ratings") as raised:
        model.fit(RATINGS)
    assert isinstance(raised.value, FastMFError)
    if isinstance(model, DescentModel):
        with pytest.raises(OutOfMemoryError, match="3 factors of 60 users and 40 items"):
            model.partial_fit(RATINGS)
    assert model.user_factors is before


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    def fail(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        fastmf.SGD(n_factors=2, n_epochs=1).fit(RATINGS, callbacks=[fail])
    with pytest.raises(DataError):
        fastmf.SGD().fit(RATINGS.take(np.arange(0)))


@pytest.mark.parametrize("kind", [fastmf.ALS, fastmf.ImplicitALS])
@pytest.mark.parametrize("n_started", [0, 1, 2])
def test_with_fewer_threads_than_asked_for_the_answer_is_the_same(
    kind: type[FactorModel], n_started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratings = fastmf.testing.power_law(400, 150, 12_000, seed=3)
    expected = kind(n_factors=8, n_epochs=2, n_threads=4).fit(ratings)
    left, start, refused = [n_started], threading.Thread.start, []

    def start_a_few(thread: threading.Thread) -> None:
        if left[0] == 0:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_a_few)
    found = kind(n_factors=8, n_epochs=2, n_threads=4).fit(ratings)

    assert refused
    assert found.user_factors.tobytes() == expected.user_factors.tobytes()
    assert found.item_factors.tobytes() == expected.item_factors.tobytes()
