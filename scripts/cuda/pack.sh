#!/usr/bin/env bash
# Builds what scripts/cuda/on_gpu.sh needs, on a machine without a GPU, and packs it.
#
#   scripts/cuda/pack.sh DIR OUT.tar.xz        DIR: of the toolkit, which is made there if it is not (toolkit.sh)
#
# Into OUT.tar.xz go the harness, the benchmark `peer` and the tests of `ptq`, linked with cuDNN for GPUs of CUDA_COMPUTE_CAP (90: H100)
# and stripped, and the grids and scripts that the checks use. FEATURE=cuda leaves cuDNN out; FEATURE= (empty) packs
# binaries for the CPU, to try on_gpu.sh out. CARGO_TARGET_DIR: where to build (DIR/target). PARTS="harness peer tests": what to build,
# where not all of it is wanted. LIMIT_MIB: how large the pack may get (55).
set -euo pipefail
dir=$(realpath -m "$1")
out=$(realpath -m "$2")
feature=${FEATURE-cudnn}
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$dir/target}")
if [ -n "$feature" ]; then
    scripts/cuda/toolkit.sh "$dir"
    export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
    . "$dir/env.sh"
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/bin" "$stage/scripts" "$(dirname "$out")"
executable() { # kind and name of a target; reads Cargo's messages
    python3 -c '
import json, sys
messages = map(json.loads, sys.stdin)
found = [m["executable"] for m in messages if m.get("executable") and sys.argv[1] in m["target"]["kind"] and m["target"]["name"] == sys.argv[2]]
print(found[-1])' "$1" "$2"
}
build() { cargo "$1" --release --locked ${feature:+--features "$feature"} "${@:2}" --message-format=json-render-diagnostics; }
for part in ${PARTS:-harness peer tests}; do
    # All with the development dependencies, so that nothing is compiled twice.
    case $part in
        harness) what="bin harness" command="build --bin harness --bench peer" ;;
        peer) what="bench peer" command="build --bench peer" ;;
        # Both packages: for one alone all dependencies, and Candle's kernels, are compiled once more with the features that it asks for.
        tests) what="lib ptq" command="test --package metaaug --package ptq --lib --no-run" ;;
        *) echo "error: PARTS names $part, which is none of harness, peer and tests" >&2 && exit 2 ;;
    esac
    build $command >"$stage/messages"
    strip -o "$stage/bin/$part" "$(executable $what <"$stage/messages")"
done
rm "$stage/messages"
git describe --always --dirty --exclude '*' >"$stage/revision"
cp -r experiments "$stage/"
cp -r scripts/bench_vs_torch.py scripts/make_image_folder.py scripts/cuda "$stage/scripts/"
# The PyTorch side of MetaAug's step: 27 KB of Python, which few machines have.
python3 -m pip download --quiet --no-deps --dest "$stage/python" higher==0.2.1 || echo "note: packed without higher, which MetaAug's times need" >&2

# The same data lie in each binary: a dictionary that spans all of them finds them once.
tar -C "$stage" -cf - . | xz -T1 -6 --lzma2=preset=6,dict=256MiB >"$out"
ls -l --block-size=K "$stage/bin" "$out"
limit=$((${LIMIT_MIB:-55} << 20))
if [ "$(stat -c %s "$out")" -gt "$limit" ]; then
    echo "error: $out takes more than $((limit >> 20)) MiB" >&2
    exit 1
fi
