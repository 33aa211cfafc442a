#!/usr/bin/env python3
"""Fills a folder of results with as many runs as one likes, to measure how long `harness report` and `harness list` take.

usage: make_many_runs.py HARNESS RUN_FOLDER TARGET [SEEDS]

Writes TARGET/many.toml, a grid of 20 x SEEDS cells (500 unless given) with two tables and two figures, and a run of each cell under
TARGET/results: records with the cells' ids, everything else copied from RUN_FOLDER (a stored run of resnet20). Then:

    cd TARGET && time HARNESS report many.toml --quiet && time HARNESS list > /dev/null
"""
import json
import os
import subprocess
import sys
from pathlib import Path

GRID = """name = "many"
title = "Many runs"

[base]
arch = "resnet20"
calib-images = 64

[axes]
bits = ["W2A2", "W2A4", "W4A2", "W4A4"]
method = ["rtn", "adaround", "brecq", "qdrop", "genie-m"]
seed = [%s]

[[table]]
name = "main"
rows = ["method"]
columns = "bits"
significance = true

[[table]]
name = "gap"
rows = ["method"]
columns = "bits"
metric = "gap"

[[figure]]
name = "bits"
kind = "lines"
x = ["bits"]
series = ["method"]

[[figure]]
name = "cost"
kind = "cost"
series = ["method", "bits"]
"""


def main():
    harness, template, target = (Path(argument).resolve() for argument in sys.argv[1:4])
    seeds = int(sys.argv[4]) if len(sys.argv) > 4 else 500
    target.mkdir(parents=True, exist_ok=True)
    (target / "many.toml").write_text(GRID % ", ".join(str(seed) for seed in range(seeds)))
    record = json.loads((template / "record.json").read_text())
    plan = subprocess.run([harness, "plan", "many.toml"], cwd=target, check=True, capture_output=True, text=True).stdout
    runs = target / "results" / "many" / "runs"
    for line in plan.splitlines():
        parts = line.split()
        if len(parts) != 2 or not parts[1].startswith("resnet20-"):
            continue
        run_id = parts[1]
        bits, rest = run_id.removeprefix("resnet20-").split("-", 1)
        method, seed, _ = rest.rsplit("-", 2)
        record["run_id"], record["experiment"] = run_id, "many"
        record["cell"] |= {"bits": bits.upper(), "method": method, "seed": int(seed[1:]), "calib-images": 64}
        folder = runs / run_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(record))
        for name in ["cell.toml", "trace.json", "predictions.safetensors"]:
            if not (folder / name).exists():
                os.link(template / name, folder / name)


if __name__ == "__main__":
    main()
