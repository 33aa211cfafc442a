#!/usr/bin/env bash
# Checks and times the harness on a machine with a GPU and PyTorch, without Rust, in under nine minutes.
#
#   scripts/cuda/on_gpu.sh PACK [OUT]       PACK: what scripts/cuda/pack.sh made, or a folder of its content; OUT: a folder (.)
#
# Writes OUT/cuda-<gpu>.md, each part as soon as it is known, and all output to OUT/on_gpu.log. A step that fails or takes too long
# leaves its last lines there, and the next one begins. Variables:
#
#   STEPS    those to do, in order (doctor ops cells bench meta cell)
#   TOTAL    seconds for everything (520); no step goes on after that
#   OPS_S, CELLS_S, BENCH_S, META_S, CELL_S    seconds for one: 80, 120, 260 (all of ARCHS together), 45, 110
#   ARCHS    that are timed beside PyTorch (resnet18 resnet50 mobilenetv2 regnetx-600m)
#   CELL_SET what to change in the cells of `cell` (KEY=VALUE ...), such as recipe.iterations=200
#   ROUNDS   of timing (2); TF32=1: with it; THREADS: of the host (all)
#   DEVICE   cuda:0; with `cpu` and a pack for the CPU everything can be tried out where there is no GPU
#
# `bench` and `meta` need PyTorch, `cell` Pillow and numpy.
set -uo pipefail
pack=$(realpath "$1")
out=$(realpath -m "${2:-.}")
cd "$(dirname "$0")/../.." || exit
device=${DEVICE:-cuda:0}
threads=${THREADS:-$(nproc)}
steps=${STEPS:-doctor ops cells bench meta cell}
python=${PYTHON:-python3}
archs=${ARCHS:-resnet18 resnet50 mobilenetv2 regnetx-600m}
total=${TOTAL:-520}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$out" "$work/logs"
log=$out/on_gpu.log
: >"$log"
export PYTHONUNBUFFERED=1 RAYON_NUM_THREADS=$threads
[ "${TF32:-0}" = 1 ] || export NVIDIA_TF32_OVERRIDE=0

gpu=cpu
driver=none
if [ "$device" != cpu ]; then
    gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
fi
report=$out/cuda-$(tr '[:upper:]' '[:lower:]' <<<"${gpu:-unknown}" | tr -cs 'a-z0-9\n' -).md

say() { printf '%s\n' "$@" | tee -a "$report"; }
left() { echo $((total - SECONDS)); }

# limited SECONDS NAME COMMAND...: its output goes to $work/logs/NAME and the log. Says in the report if it failed.
limited() {
    local seconds=$1 name=$2 started=$SECONDS code
    shift 2
    [ "$seconds" -lt "$(left)" ] || seconds=$(left)
    if [ "$seconds" -lt 5 ]; then
        say "" "$name: left out, no time is left."
        return 1
    fi
    timeout --kill-after=5 "$seconds" "$@" </dev/null >"$work/logs/$name" 2>&1
    code=$?
    { echo "== $name: $*"; cat "$work/logs/$name"; echo "== $name ended with $code after $((SECONDS - started)) s"; } >>"$log"
    echo "-- $name ended with $code after $((SECONDS - started)) s, $(left) s left"
    [ "$code" = 0 ] && return 0
    say "" "$name ended with code $code$([ "$code" = 124 ] && echo ", its $seconds s over"):" "" '```' "$(tail -30 "$work/logs/$name")" '```'
    return 1
}

unpack() {
    if [ -d "$pack" ]; then
        ln -s "$pack" "$work/pack"
    else
        mkdir "$work/pack"
        "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="data")' "$pack" "$work/pack"
    fi
    harness=$work/pack/bin/harness
    peer=$work/pack/bin/peer
    tests=$work/pack/bin/tests
    export PYTHONPATH=$(printf '%s:' "$work"/pack/python/*.whl)${PYTHONPATH:-}
}

# The folders in which an installed PyTorch keeps cuBLAS, cuRAND, NVRTC and cuDNN; libcuda.so.1 comes with the driver.
libraries_of_torch() {
    "$python" -c '
import glob, importlib.util, os
torch = os.path.dirname(importlib.util.find_spec("torch").origin)
found = glob.glob(os.path.dirname(torch) + "/nvidia/**/lib/lib*.so*", recursive=True)
print(":".join(sorted({os.path.dirname(path) for path in found} | {torch + "/lib"})))'
}

step_doctor() {
    say "# The harness on ${gpu:-a GPU that nvidia-smi does not find}" "" \
        "$(date -u +%Y-%m-%d); driver $driver; revision $(cat "$work/pack/revision"); $threads threads;" \
        "$("$python" -c 'import torch; print("PyTorch", torch.__version__, "with CUDA", torch.version.cuda, "and cuDNN", torch.backends.cudnn.version())' 2>&1 | tail -1);" \
        "TF32 $([ "${TF32:-0}" = 1 ] && echo on || echo off). Made by \`scripts/cuda/on_gpu.sh\` from a pack of \`scripts/cuda/pack.sh\`."
    local missing
    missing=$(ldd "$harness" "$peer" "$tests" 2>&1 | grep 'not found' | sort -u)
    [ -z "$missing" ] || say "" "Missing libraries:" "" '```' "$missing" '```'
    [ "$device" = cpu ] || nvidia-smi >>"$log" 2>&1
    limited 60 doctor "$harness" doctor && say "" '```' "$(grep -vE '^(cache|hub|data|  fashion|  cifar|  imagenet|  mnist|  image|architectures|methods|embedded)' "$work/logs/doctor")" '```'
}

step_ops() {
    local test
    say "" "## Every operation beside the CPU" "" "The library's tests with \`cuda\` in their names; how far results and gradients are apart, relative to their norm."
    # One at a time: what fails can be told from what came before it.
    limited "${OPS_S:-80}" ops "$tests" cuda --test-threads=1 --nocapture
    say "" "$(grep -E '^test result' "$work/logs/ops" || echo 'No summary.')" "" "| operation | apart |" "|---|---:|" "$(grep -oE '\| .* \|' "$work/logs/ops")" ""
    # An error of a kernel is an error of all that follow it in the process: alone, the others may pass.
    sed -n '/^failures:$/,$ s/^    \([a-z0-9_:]*\)$/\1/p' "$work/logs/ops" | sort -u | head -12 | while read -r test; do
        limited 20 "alone-${test##*:}" "$tests" --exact "$test" --nocapture && say "- $test passes alone"
    done
}

# grid FOLDER DEVICE ARGUMENTS...: runs a grid with results and cache of its own.
grid() { HARNESS_CACHE=$work/$1/cache "$harness" run --results "$work/$1" --device "$2" --quiet "${@:3}"; }

step_cells() {
    say "" "## Cells on the GPU and on the CPU" "" "\`harness run experiments/quickstart.toml\` and \`scripts/cuda/check.toml\`, with \`--device $device\` and \`--device cpu\`."
    local grids="experiments/quickstart.toml scripts/cuda/check.toml" seconds=${CELLS_S:-120} end file
    end=$((SECONDS + seconds))
    export -f grid
    export harness work grids
    timeout --kill-after=5 "$seconds" bash -c 'for file in $grids; do grid cpu cpu "$file" --jobs 4; done' >"$work/logs/on_the_cpu" 2>&1 &
    local cpu=$!
    for file in $grids; do
        limited $((end - SECONDS)) "$(basename "$file" .toml)" bash -c 'grid "$@"' - gpu "$device" "$file"
    done
    limited $((end - SECONDS)) again bash -c 'grid again "$1" scripts/cuda/check.toml; grid again "$1" experiments/quickstart.toml --filter "bits(w2a2)"' - "$device"
    wait "$cpu"
    { echo "== on the CPU"; cat "$work/logs/on_the_cpu"; } >>"$log"
    limited 20 compared "$python" scripts/cuda/compare_runs.py "$work/cpu" "$work/gpu" "$work/again" && say "" "$(cat "$work/logs/compared")"
}

bench() { # SECONDS NAME ARGUMENTS...
    local seconds=$1 name=$2
    shift 2
    limited $((seconds + 20)) "$name" "$python" scripts/bench_vs_torch.py --device "$device" --peer "$peer" --rounds "${ROUNDS:-2}" \
        --threads "$threads" --seconds "$seconds" --markdown "$work/$name.md" $([ "${TF32:-0}" = 1 ] && echo --tf32) "$@"
    say "" "$(sed 's/^#/##/' "$work/$name.md" 2>/dev/null)" ""
    # A panic's message is on the line after the place.
    grep -E -A1 '^not measured|side ended|panicked at' "$work/logs/$name" | grep -v '^--' | sed 's/^/- /' | tee -a "$report"
}

step_bench() {
    local arch end=$((SECONDS + ${BENCH_S:-260})) count
    count=$(wc -w <<<"$archs")
    for arch in $archs; do
        # What one leaves of its share is the others'.
        bench $(((end - SECONDS) / count)) "bench-$arch" --arch "$arch"
        count=$((count - 1))
    done
}

step_meta() { bench "${META_S:-45}" bench-meta --arch resnet20 --only meta; }

images() { "$python" scripts/make_image_folder.py "$work/images" --train 2 >"$work/logs/images" 2>&1; }

step_cell() {
    say "" "## A whole cell of ResNet-18 at 224 x 224" "" "Made-up weights, generated images: only times mean something."
    wait "$images_pid" || { say "" "No images: $(tail -3 "$work/logs/images")"; return; }
    local method of folder set options memory watching used="" end=$((SECONDS + ${CELL_S:-110})) changes=(--set weights=made-up --set "data=folder:$work/images")
    for set in recipe.iterations=50 ${CELL_SET:-}; do changes+=(--set "$set"); done
    export -f grid
    export harness work
    # `pinned`: QDrop with its activations in page-locked memory of the host.
    for method in qdrop pinned metaaug; do
        of=$method folder=cell options=()
        [ $method != pinned ] || of=qdrop folder=pinned options=(--memory 0)
        [ $method != metaaug ] || changes+=(--set meta.iterations=3 --set transform.warmup-iterations=10)
        memory=$work/logs/memory-$method
        nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 200 >"$memory" 2>/dev/null &
        watching=$!
        limited $((end - SECONDS)) "cell-$method" bash -c 'grid "$@"' - $folder "$device" experiments/table1.toml "${options[@]}" \
            --filter "arch(resnet18) & bits(w2a2) & setting(qdrop) & method($of)" "${changes[@]}" --profile="$work/trace-$method.json" &&
            say "" "Where the time of $method went, by the host's clock, which may run ahead of the GPU:" "" '```' "$(sed '/^ operation/,$d' "$work/logs/cell-$method")" '```'
        kill "$watching" 2>/dev/null
        [ ! -s "$memory" ] || used+="$method $(sort -n "$memory" | tail -1) MiB "
    done
    [ -z "$used" ] || say "" "Memory of the GPU in use at most, the driver's included: $used"
    for folder in cell pinned; do
        limited 20 "extrapolated-$folder" "$python" scripts/cuda/extrapolate.py "$work/$folder" && say "" "$(cat "$work/logs/extrapolated-$folder")"
    done
    local compared=("$work"/{cell,pinned}/*/runs/*-qdrop-*/predictions.safetensors) outcome="were not compared"
    if [ -e "${compared[0]}" ] && [ -e "${compared[1]}" ]; then
        cmp -s "${compared[@]}" && outcome="are the same" || outcome="are NOT the same"
    fi
    say "" "The second table is QDrop's with its activations in page-locked memory of the host; its predictions $outcome."
}

unpack || exit
: >"$report"
if [ "$device" != cpu ]; then
    LD_LIBRARY_PATH=$(libraries_of_torch)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
fi
case " $steps " in *" cell "*)
    images &
    images_pid=$!
    ;;
esac
for step in $steps; do
    "step_$step"
    echo "== $step done, $(left) s left"
done
