"""What must be settled before any test imports NumPy or Numba."""

import os

# Threads that wait for work sleep. By default they spin, which takes seconds from whatever else runs on the machine:
# other tests, and the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# References multiply small matrices: threads of BLAS cost more than they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
