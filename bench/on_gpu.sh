#!/usr/bin/env bash
# All that fastmf can say of itself on a GPU, in one go and in less than ten minutes. First tests and memory checks, side
# by side, since nothing of them is timed; then measurements beside other libraries, with the machine to themselves.
# Writes cuda.json, for bench/results/, and what the tests print into the folder given (default: here). What no time was
# left for is named at the end.
set -uo pipefail
folder=$(realpath "${1:-.}")
cd "$(dirname "$0")/.." || exit
declare -A checks
status=0

check() { # NAME COMMAND...: in the background
    timeout 180 "${@:2}" > "$folder/$1.log" 2>&1 &
    checks[$1]=$!
}

fastmf doctor || exit
for file in tests/cuda/parity/test_*.py; do
    check "$(basename "$file" .py)" python -m pytest -q "$file"
done
if command -v compute-sanitizer > /dev/null; then
    some="test_tables_of_one_row_or_none or test_two_warps or test_long_rows_a or test_gram or test_squared_error"
    for tool in memcheck racecheck; do
        check "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 python -m pytest -q tests/cuda/parity -k "$some"
    done
else
    echo "compute-sanitizer is not installed: memory and races are not checked"
fi
for name in "${!checks[@]}"; do
    if wait "${checks[$name]}"; then
        echo "$name: $(tail -n 1 "$folder/$name.log")"
    else
        status=1
        echo "$name FAILED:"
        tail -n 40 "$folder/$name.log"
    fi
done
fastmf bench --device cuda --laps 3 --minutes 6 --output "$folder/cuda.json" --overwrite || status=1
fastmf bench targets "$folder/cuda.json" | grep CUDA
exit $status
