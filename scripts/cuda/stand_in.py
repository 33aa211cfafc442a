"""Builds what stands in for the driver and the libraries of an NVIDIA GPU on a machine without one (`stand_in/`)."""
import glob
import os
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
OURS = HERE.parent.parent / "crates/ptq/src/ops/kernels"
LIBRARIES = {"driver": "libcuda.so.1", "cublas": "libcublas.so.13", "cublaslt": "libcublasLt.so.13", "cudnn": "libcudnn.so.9",
             "curand": "libcurand.so.10", "nvrtc": "libnvrtc.so.13", "cupti": "libcupti.so.13"}
CANDLE = ["affine", "binary", "cast", "fill", "indexing", "reduce", "ternary", "unary"]
# Headers of CUDA that Candle's sources include, and of which they need nothing here.
HEADERS = ["compatibility.cuh", "cuda.h", "cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "cuda/std/limits"]
OPTIONS = ["-fopenmp", "-fPIC", "-w"]
CPP = ["-O2", "-x", "c++", "-std=c++17", "-ffp-contract=off"]


def of_registry(name):
    """The folder of the sources of a crate."""
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    return pathlib.Path(sorted(glob.glob(f"{home}/registry/src/*/{name}"))[-1])


def libraries(folder):
    """Of the names that a binary asks for. What `stand_in/` does not define counts and succeeds, of all that cudarc knows."""
    cudarc = of_registry("cudarc-0.19.*")
    for module, name in LIBRARIES.items():
        declared = re.findall(r"^\s+fn ((?:cu|nvrtc|cudnn|curand|cublas)\w*)\(", (cudarc / f"src/{module}/sys/mod.rs").read_text(), re.M)
        own = HERE / f"stand_in/{module}.c"
        source = own.read_text() if own.exists() else ""
        # Macros define functions too.
        seen = subprocess.run(["cc", "-E", "-P", "-I", HERE / "stand_in", "-"], input=source, text=True, capture_output=True, check=True).stdout
        defined = set(re.findall(r"\b(?:int|size_t) (\w+)\([^;{}]*\) *\{", seen))
        source += "" if module == "driver" else "void count_call(const char *);\n"
        source += "".join(f'int {f}(void) {{ return count_call("{f}"), 0; }}\n' for f in sorted(set(declared) - defined))
        path = pathlib.Path(folder, f"{module}.c")
        path.write_text(source)
        link = [] if module == "driver" else [f"-L{folder}", f"-l:{LIBRARIES['driver']}"]
        options = ["-O3", "-march=native", "-fno-builtin", "-I", HERE / "stand_in", f"-Wl,-soname,{name}"]
        subprocess.run(["cc", "-shared", *OPTIONS, *options, "-o", f"{folder}/{name}", path, *link], check=True)


def environment(folder, toolkit):
    """In which a command finds the libraries in `folder` before those of the toolkit."""
    return dict(os.environ, LD_LIBRARY_PATH=f"{folder}:{os.path.abspath(toolkit)}/cuda/lib64")


def kernels(folder):
    """Libraries of the kernels, ours and Candle's, as `stand_in/driver.c` calls them."""
    candle = pathlib.Path(folder, "candle")
    shutil.copytree(of_registry("candle-kernels-*") / "src", candle, ignore=lambda _, names: [n for n in names if not n.endswith((".cu", ".cuh"))])
    for header in HEADERS:
        (candle / header).parent.mkdir(parents=True, exist_ok=True)
        (candle / header).write_text("")
    threads = HERE / "stand_in/threads.h"
    paths = [library(folder, source, ["-I", OURS], "for (u32 at = 0; at < grid[0]; ++at) { at_block(at, grid[0]); %s; }")
             for source in sorted(OURS.glob("*.cu"))]
    for name in CANDLE:
        options = ["-I", candle, "-include", threads, "-D__CUDA_ARCH__=0", *(["-DWAITING_THREADS"] if name == "reduce" else [])]
        paths.append(library(folder, candle / f"{name}.cu", options, "each_thread(grid, block, [=] { %s; });"))
    return paths


def library(folder, source, options, grid):
    """One source, with a function `run_NAME` for each kernel and the sizes of its arguments; `grid`: what calls it for each block or thread."""
    seen = subprocess.run(["c++", "-E", "-P", *CPP, *options, source], text=True, capture_output=True, check=True).stdout
    lines = []
    for name, parameters in re.findall(r'extern "C"\s+void\s+(\w+)\s*\(([^)]*)\)\s*\{', seen):
        if name == "at_block":
            continue
        types = [re.sub(r"\s*\w+$", "", parameter.strip()) for parameter in parameters.split(",")]
        call = f"{name}({', '.join(f'*({of}*)arguments[{at}]' for at, of in enumerate(types))})"
        sizes = ", ".join([*(f"sizeof({of})" for of in types), "0"])
        lines.append(f'extern "C" const unsigned sizes_{name}[] = {{ {sizes} }};')
        lines.append(f'extern "C" void run_{name}(void **arguments, const unsigned *grid, const unsigned *block) {{ {grid % call} }}')
    path = pathlib.Path(folder, f"{source.stem}.cpp")
    path.write_text(f'#include "{source}"\n' + "\n".join(lines) + "\n")
    made = pathlib.Path(folder, f"lib{source.stem}-of-{source.parent.name}.so")
    subprocess.run(["c++", "-shared", *OPTIONS, *CPP, *options, "-o", made, path], check=True)
    return made
