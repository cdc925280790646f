"""Arithmetic on arrays: the kernels of fastmf.

One operation, one folder (``layout``, ``predict``, ``sgd``, ``als``, ``linalg``, ``topk``); in each, variants that
export the same names with the same signatures:

``reference.py``
    NumPy only, slow and obvious: the specification.
``point.py``
    The arithmetic of one rating or one row as a plain Python function, where variants can share it.
``cpu``
    The same operation compiled by Numba, on all cores: a file, or a folder whose ``__init__.py`` it is.
``cuda``
    The same on a GPU, where there is one.

Nothing here knows files, ids or models, and importing this package imports neither Numba nor a kernel.
"""
