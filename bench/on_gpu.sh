#!/usr/bin/env bash
# What fastmf can say of itself on a GPU, in stages of at most three minutes each. A stage can be run alone, and writes
# its files into the folder as it goes, so that one that is cut short leaves what it has found.
#
#   bench/on_gpu.sh FOLDER [STAGE...]        all stages if none is named
#
#   correct       parity of all kernels with their references, and models trained on a GPU beside the CPU
#   sanitize      compute-sanitizer (memory, races, uninitialised reads, barriers) on small problems
#   speed-small   ceilings, training in the shape of MovieLens-20M, 100 thousand queries in a million items
#   speed-large   ceilings, training in the shape of the Netflix Prize
#   speed-scan    ceilings, a million queries in a million items
#
# DATA names the folder that holds movielens-1m/splits, for the models of "correct"; without it they are left out.
set -uo pipefail
if [ $# -eq 0 ]; then
    sed -n '2,14s/^# \?//p' "$0"
    exit 2
fi
mkdir -p "$1"
folder=$(realpath "$1")
data=${DATA:+$(realpath "$DATA")}
shift
cd "$(dirname "$0")/.." || exit
seconds=180
status=0
# Packages may be newer than those that fastmf is tested with: what they deprecate is no failure here.
pytest=(python3 -m pytest -q -p no:cacheprovider -W default)
some="test_tables_of_one_row_or_none or test_two_warps or test_long_rows_a or test_gram or test_squared_error"

run() { # NAME COMMAND...: keep what a command prints, show the end of it
    local name=$1
    shift
    if timeout -k 5 "$seconds" "$@" > "$folder/$name.log" 2>&1; then
        echo "$name: $(tail -n 1 "$folder/$name.log")"
    else
        status=1
        echo "$name FAILED:"
        tail -n 40 "$folder/$name.log"
        return 1
    fi
}

bench() { # NAME SUITE...
    local name=$1
    shift
    run "$name" python3 -m fastmf_bench --device cuda --output "$folder/$name.json" --overwrite "$@"
}

correct() {
    local workers=()
    if python3 -c "import xdist" 2> /dev/null; then
        workers=(-n "$(nproc)" --dist worksteal)
    fi
    run parity "${pytest[@]}" "${workers[@]}" tests/cuda/parity tests/cuda/test_on_device.py
    if [ -n "$data" ]; then
        bench quality quality --data "$data"
    fi
}

sanitize() {
    if ! command -v compute-sanitizer > /dev/null; then
        echo "compute-sanitizer is not installed: memory and races are not checked"
        return
    fi
    local tool process processes=()
    for tool in memcheck racecheck initcheck synccheck; do
        run "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "${pytest[@]}" tests/cuda/parity -k "$some" &
        processes+=($!)
    done
    for process in "${processes[@]}"; do
        wait "$process" || status=1
    done
}

export PYTHONPATH=$PWD:$PWD/kernels:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}
python3 -m fastmf doctor | tee "$folder/doctor.log"
grep -q "used with --device cuda" "$folder/doctor.log" || exit 1
[ $# -gt 0 ] || set -- correct sanitize speed-small speed-scan speed-large
for stage in "$@"; do
    case $stage in
        correct) correct ;;
        sanitize) sanitize ;;
        speed-small) bench speed-small training topk --shape ml-20m ;;
        speed-scan) bench speed-scan topk-large --laps 3 ;;
        speed-large) bench speed-large training --shape netflix --laps 3 ;;
        *)
            echo "there is no stage $stage; expected correct, sanitize, speed-small, speed-scan or speed-large"
            exit 2
            ;;
    esac
done
exit $status
