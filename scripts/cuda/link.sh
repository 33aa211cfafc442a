#!/usr/bin/env bash
# Compiles and links the harness for CUDA on a machine without a GPU.
#
#   scripts/cuda/link.sh DIR [FEATURE]        FEATURE: cuda (default) or cudnn
#
# Makes a toolkit in DIR (toolkit.sh) whose libraries are stand-ins of the real names: the binary in DIR/target loads the real
# ones where there are some. It does not start without the driver, libcuda.so.1.
# For a binary to use, install the toolkit of NVIDIA and run `cargo build --release --features cuda`.
set -euo pipefail
dir=$(realpath -m "$1")
feature=${2:-cuda}
cd "$(dirname "$0")/../.."
scripts/cuda/toolkit.sh "$dir"
. "$dir/env.sh"
nvcc --version | tail -2
CARGO_TARGET_DIR=$dir/target cargo build --release --locked --features "$feature"

# With the stand-ins the binary starts, and must say that there is no device instead of ending in a panic.
export LD_LIBRARY_PATH=$CUDA_HOME/lib64:$CUDA_HOME/lib64/stubs
"$dir/target/release/harness" doctor
if "$dir/target/release/harness" run experiments/quickstart.toml --smoke --dry-run --device cuda:0; then
    echo "error: a device was found where there is none" >&2
    exit 1
fi
