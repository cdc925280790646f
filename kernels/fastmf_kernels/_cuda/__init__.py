"""Shared by the CUDA variants of all operations: the compiler, single instructions, and device memory."""
