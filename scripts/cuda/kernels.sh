#!/usr/bin/env bash
# Compiles our kernels to PTX, for the oldest and newer generations of GPUs, with warnings as errors.
#
#   scripts/cuda/kernels.sh [DIR]        DIR: where a toolkit may be made, target/cuda-toolkit by default
#
# The compiler is the nvcc of CUDA_HOME or of PATH; where there is none, that of a toolkit from PyPI wheels (`toolkit.sh`). Says so and
# succeeds where that cannot be had either.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=${1:-target/cuda-toolkit}

nvcc=${CUDA_HOME:+$CUDA_HOME/bin/nvcc}
[ -x "$nvcc" ] || nvcc=$(command -v nvcc || true)
if [ -z "$nvcc" ]; then
    if ! scripts/cuda/toolkit.sh "$dir"; then
        echo "SKIPPED: kernels are not compiled for GPUs: no nvcc in CUDA_HOME or on PATH, and no toolkit from PyPI" >&2
        exit 0
    fi
    nvcc=$dir/cuda/bin/nvcc
fi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for capability in 75 80 90; do
    "$nvcc" --ptx --fmad=false -Werror all-warnings -arch=compute_$capability --output-directory "$made" crates/ptq/src/ops/kernels/*.cu
    # A compiler that makes nothing would prove nothing.
    for source in crates/ptq/src/ops/kernels/*.cu; do
        name=$(basename "$source" .cu)
        for kernel in $(sed -nE 's/^KERNEL ([a-z_]+)\(.*/\1/p' "$source"); do
            grep -q "\.entry $kernel(" "$made/$name.ptx" || { echo "error: no $kernel for $capability in $name.ptx" >&2; exit 1; }
        done
    done
done
