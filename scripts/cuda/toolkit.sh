#!/usr/bin/env bash
# Makes a CUDA 13.0 toolkit, enough to compile and link the harness on a machine without a GPU.
#
#   scripts/cuda/toolkit.sh DIR; . DIR/env.sh
#
# From PyPI wheels (about 105 MB), with real headers and the real compiler. The libraries are link-time stand-ins, one function for
# each that cudarc declares, which return an error; they have the real names, so that a binary loads the real libraries where
# there are some. A toolkit that is there already is left as it is.
set -euo pipefail
dir=$(realpath -m "$1")
[ -e "$dir/env.sh" ] && exit
cd "$(dirname "$0")/../.."
mkdir -p "$dir"

[ -x "$dir/venv/bin/pip" ] || python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-deps nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
site=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
wheels=$site/nvidia/cu13
home=$dir/cuda
rm -rf "$home"
mkdir -p "$home/lib64/stubs"
for folder in bin include nvvm; do ln -s "$wheels/$folder" "$home/$folder"; done
ln -s lib64 "$home/lib"
shopt -s nullglob
for library in "$wheels"/lib/*.so.* "$wheels"/lib/*.a; do
    ln -s "$library" "$home/lib64/"
    name=${library##*/}
    # Linkers look for libX.so, which wheels do not carry.
    case $name in *.so.*) ln -sf "$name" "$home/lib64/${name%%.so.*}.so" ;; esac
done

cargo fetch --quiet --locked
cudarc=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.* | sort -V | tail -1)
stand_in() { # module of cudarc, library, its name at run time, the error code to return
    [ -e "$home/lib64/lib$2.so" ] && return
    local source=$home/lib64/stubs/$2.c
    grep -hE '^\s+fn (cu|nvrtc|cudnn|curand|cublas)[A-Za-z0-9_]*\(' "$cudarc/src/$1/sys/mod.rs" |
        sed -E "s/.*fn ([A-Za-z0-9_]+)\(.*/int \1(void){return $4;}/" | sort -u >"$source"
    cc -shared -fPIC -fno-builtin -w -Wl,-soname,"$3" -o "$home/lib64/stubs/lib$2.so" "$source"
    ln -sf "lib$2.so" "$home/lib64/stubs/$3"
}
stand_in driver cuda libcuda.so.1 34
stand_in nvrtc nvrtc libnvrtc.so.13 5
stand_in cublas cublas libcublas.so.13 1
stand_in cublaslt cublasLt libcublasLt.so.13 1
stand_in curand curand libcurand.so.10 201
stand_in cudnn cudnn libcudnn.so.9 1001

cat >"$dir/env.sh" <<END
export CUDA_HOME=$home CUDA_PATH=$home PATH=$home/bin:\$PATH
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80} CUDAFORGE_THREADS=\${CUDAFORGE_THREADS:-2}
END
