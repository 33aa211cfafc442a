#!/usr/bin/env python3
"""Checks what the harness says when a GPU fails, on a machine without one.

    scripts/cuda/toolkit.sh DIR; . DIR/env.sh; cargo build --release --features cudnn
    scripts/cuda/faults.py DIR target/release/harness

Every case runs the harness on a driver that does nothing but count (`stand_in/driver.c`), which gives an error of the real
one when it is asked to: no driver, one that is too old, no GPU, no memory at the start and in the middle, a GPU that stops in
the middle of a grid. The harness must end with the right code and one line that names the cause and the remedy; a failed cell
is a record, and the grid goes on where it can.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from stand_in import environment, libraries  # noqa: E402

GRID = """name = "faults"
[base]
arch = "resnet20"
weights = "made-up"
bits = "W2A2"
dataset = "fashion-mnist"
setting = "qdrop"
calib-images = 64
recipe = { iterations = 20 }
[axes]
method = ["rtn", "qdrop", "brecq"]
"""

# The error, arguments of `run`, exit code, what stderr must say, and per method what its record says (None: it is done).
CASES = [
    ("no driver", "init:34:0", [], 96, ["there is no NVIDIA driver"], {}),
    ("no GPU", "init:100:0", [], 96, ["no NVIDIA GPU is visible", "CUDA_VISIBLE_DEVICES"], {}),
    ("an old driver", "init:803:0", [], 96, ["driver is older than the CUDA toolkit"], {}),
    ("a GPU that is not there", "", ["--device", "cuda:7"], 96, ["--device cuda:7", "no GPU of this number"], {}),
    ("kernels newer than the driver", "module:222:0", [], 100, ["2 of 3 are left"], {"rtn": "driver is older than the CUDA toolkit", "qdrop": "no record"}),
    ("kernels of another GPU", "module:209:0", [], 100, ["2 of 3 are left"], {"rtn": "no kernels for a GPU of this compute capability", "qdrop": "no record"}),
    ("no memory at the start", "allocate:2:0", [], 96, ["the GPU has no memory left", "--memory"], {}),
    ("no memory for a large tensor", "allocate:2:8M", [], 0, [], {"rtn": None, "qdrop": None, "brecq": None}),
    ("no memory in the middle", "allocate:2:20000", [], 100, [], {"rtn": None, "brecq": "the GPU has no memory left"}),
    ("a GPU that stops", "launch:700:20000", [], 100, ["1 of 3 are left, since the device has stopped"], {"rtn": None, "qdrop": "the GPU has stopped", "brecq": "no record"}),
]


def check(harness, variables, folder, case):
    name, fail, arguments, code, said, records = case
    results = pathlib.Path(folder, "results")
    variables = dict(variables, HARNESS_CACHE=f"{folder}/cache")
    if fail:
        variables["FAIL"] = fail
    grid = pathlib.Path(folder, "faults.toml")
    grid.write_text(GRID)
    command = [harness, "run", str(grid), "--results", str(results), "--fresh", "--quiet", *(arguments or ["--device", "cuda:0"])]
    done = subprocess.run(command, text=True, capture_output=True, env=variables)
    problems = [] if done.returncode == code else [f"ended with {done.returncode}, not {code}"]
    problems += [f"does not say {text!r}" for text in said if text not in done.stderr]
    if "panicked" in done.stderr:
        problems.append("panicked")
    stored = {record["cell"]["method"]: record.get("error") for record in map(lambda path: json.loads(path.read_text()), results.glob("faults/runs/*/record.json"))}
    for method, error in records.items():
        own = stored.get(method, "no record")
        # `no record` is what is expected of a cell that was not begun.
        if (own is not None) if error is None else (not own or error not in own):
            problems.append(f"{method}: {own!r:.300}, not {error!r}")
    print(f"{'ok    ' if not problems else 'FAILED'} {name}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}")
    for problem in problems:
        print(f"       {problem}")
    if problems:
        print("       " + done.stderr.strip()[-600:].replace("\n", "\n       "))
    return not problems


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    toolkit, harness = sys.argv[1], os.path.abspath(sys.argv[2])
    passed = True
    with tempfile.TemporaryDirectory() as built:
        libraries(built)
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                passed &= check(harness, environment(built, toolkit), folder, case)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
