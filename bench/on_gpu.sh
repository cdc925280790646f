#!/usr/bin/env bash
# All that fastmf can say of itself on a GPU, in one go: tests, memory checks, and measurements beside other libraries.
# Meant to take less than ten minutes. Writes cuda.json, for bench/results/, into the folder given (default: here).
set -euo pipefail
folder=$(realpath "${1:-.}")
cd "$(dirname "$0")/.."

fastmf doctor
python -m pytest -q tests/cuda --deselect tests/cuda/test_parity.py
if command -v compute-sanitizer > /dev/null; then
    some="test_tables_of_one_row_or_none or test_two_warps or test_sides"
    for tool in memcheck racecheck; do
        compute-sanitizer --tool "$tool" --error-exitcode 1 python -m pytest -q tests/cuda/parity -k "$some"
    done
else
    echo "compute-sanitizer is not installed: memory and races are not checked"
fi
fastmf bench --device cuda --laps 3 --output "$folder/cuda.json" --overwrite
fastmf bench targets "$folder/cuda.json" | grep CUDA
