#!/usr/bin/env python3
"""Fills a folder of results with as many runs as one likes, to measure how long `harness report` and `harness list` take.

usage: make_many_runs.py RUN_FOLDER TARGET [SEEDS]

Writes TARGET/many.toml, a grid of 20 x SEEDS cells (500 unless given) with two tables and two figures, and a run for each of them under
TARGET/results: records with bits, method and seed of the cell and the id that these make, everything else copied from RUN_FOLDER (a
stored run of resnet20). Then:

    cd TARGET && time HARNESS report many.toml --quiet && time HARNESS list > /dev/null
"""
import hashlib
import itertools
import json
import os
import sys
from pathlib import Path

BITS = ["W2A2", "W2A4", "W4A2", "W4A4"]
METHODS = ["rtn", "adaround", "brecq", "qdrop", "genie-m"]

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


def fields_of(cell):
    """Every field of a cell.toml by its dotted key, as text."""
    table, fields = "", {}
    for line in cell.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif " = " in line:
            key, value = line.split(" = ", 1)
            fields[table + key] = value.strip('"')
    return fields


def run_id(fields, record):
    """As src/experiment/run_id.rs makes it; harness skips records of another id."""
    identity = {key: value for key, value in sorted(fields.items()) if key not in ("variant", "data")}
    identity["weights"] = identity["weights"].split(":")[0]
    hashes = record["hashes"]
    lines = list(identity.items()) + [
        ("hash of weights", hashes["weights"]),
        ("hash of calibration images", hashes["calib"]),
        ("hash of test images", hashes["test"]),
        ("revision of the method", record["method_revision"]),
    ]
    raised = sorted(record.get("revisions", {}).items())
    lines += [(f"revision of {name}", revision) for name, revision in raised if revision != 1]
    text = "".join(f"{key} = {value}\n" for key, value in lines)
    variant = f"-{fields['variant']}" if "variant" in fields else ""
    slug = f"{fields['arch']}-{fields['bits'].lower()}-{fields['method']}{variant}-s{fields['seed']}"
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def main():
    template, target = (Path(argument).resolve() for argument in sys.argv[1:3])
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 500
    target.mkdir(parents=True, exist_ok=True)
    (target / "many.toml").write_text(GRID % ", ".join(str(seed) for seed in range(seeds)))
    record = json.loads((template / "record.json").read_text())
    fields = fields_of((template / "cell.toml").read_text())
    if run_id(fields, record) != record["run_id"]:
        sys.exit(f"{template}: the id that is made here of its record is {run_id(fields, record)}")
    runs = target / "results" / "many" / "runs"
    for bits, method, seed in itertools.product(BITS, METHODS, range(seeds)):
        fields |= {"bits": bits, "method": method, "seed": str(seed), "calib-images": "64"}
        record["cell"] |= {"bits": bits, "method": method, "seed": seed, "calib-images": 64}
        record["run_id"], record["experiment"] = run_id(fields, record), "many"
        folder = runs / record["run_id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(record))
        for name in ["cell.toml", "trace.json", "predictions.safetensors"]:
            if not (folder / name).exists():
                os.link(template / name, folder / name)


if __name__ == "__main__":
    main()
