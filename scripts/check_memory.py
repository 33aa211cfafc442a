#!/usr/bin/env python3
"""Compares the peak memory that `harness plan` predicts with what cells take, and prints a Markdown table (Linux).

    cargo build --release
    scripts/check_memory.py [--folder FOLDER]

Cells of three iterations per unit at W2A2, one after the other in one process, on the embedded data; with a FOLDER that
`scripts/make_image_folder.py FOLDER --classes 1000` made, also of ResNet-18 at 224 x 224 with made-up weights. Exits with 1
if a prediction is more than a quarter off.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SMALL = """
name = "memory"
[base]
bits = "W2A2"
recipe = { iterations = 3 }
[axes]
arch = ["resnet20", "mobilenetv2-tiny"]
method = ["rtn", "adaround", "brecq", "qdrop", "genie-m"]
calib-images = [256, 1024]
[[include]]
arch = "resnet20"
method = "pd-quant"
calib-images = 1024
recipe = { iterations = 3, correction-iterations = 3 }
[[include]]
arch = "resnet20"
method = "qdrop"
calib-images = 1024
augment = ["mixup"]
[[include]]
arch = "resnet20"
method = "metaaug"
calib-images = 256
transform = { base = 8, depth = 2, warmup-iterations = 3 }
meta = { iterations = 3 }
[[include]]
arch = "resnet20"
method = "metaaug"
calib-images = 64
transform = { warmup-iterations = 3 }
meta = { iterations = 3 }
"""

LARGE = """
name = "memory-large"
[base]
arch = "resnet18"
bits = "W2A2"
dataset = "imagenet"
data = "folder:FOLDER"
weights = "made-up"
calib-images = 32
recipe = { iterations = 3 }
[axes]
method = ["rtn", "qdrop", "genie-m"]
"""

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def cells(harness, grid, folder):
    """Run id, cell, measured and predicted bytes of every cell of `grid`."""
    name = re.search(r'name = "(.*)"', grid)[1]
    path = folder / f"{name}.toml"
    path.write_text(grid)
    environment = dict(os.environ, HARNESS_RESULTS=str(folder / "results"), HARNESS_CACHE=str(folder / "cache"))
    plan = subprocess.run([harness, "plan", path], env=environment, capture_output=True, text=True, check=True).stdout
    predicted = {run: float(n) * UNITS[unit] for run, n, unit in re.findall(r"(\S+) +about ([\d.]+) (\w+)", plan)}
    subprocess.run([harness, "run", path], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    for run, bytes_ in predicted.items():
        record = json.loads((folder / "results" / name / "runs" / run / "record.json").read_text())
        yield run, record["cell"], record["cost"]["peak_memory_bytes"], bytes_


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default=pathlib.Path(__file__).parent.parent / "target/release/harness", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, help="images for ResNet-18")
    arguments = parser.parse_args()
    grids = [SMALL]
    if arguments.folder:
        grids.append(LARGE.replace("FOLDER", str(arguments.folder.resolve())))
    print("| cell | images | measured MB | predicted MB | ratio |\n|---|---:|---:|---:|---:|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for grid in grids:
            for run, cell, measured, predicted in cells(arguments.harness, grid, pathlib.Path(folder)):
                ratios.append(predicted / measured)
                method = re.sub(r"^.*-w2a2-|-s0-.*$", "", run)
                sizes = f"| {measured / 1e6:.0f} | {predicted / 1e6:.0f} | {ratios[-1]:.2f} |"
                print(f"| {cell['arch']}, {method} | {cell['calib-images']} {sizes}", flush=True)
    print(f"\npredicted / measured: {min(ratios):.2f} to {max(ratios):.2f}")
    sys.exit(any(not 0.75 <= ratio <= 1.25 for ratio in ratios))


if __name__ == "__main__":
    main()
