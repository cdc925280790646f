"""What the CUDA variants of all operations stand on: the compiler, single instructions, and memory of the device."""
