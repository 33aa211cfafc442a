#!/usr/bin/env python3
"""Counts what one step asks of a GPU, on a machine without one: kernels, copies, allocations.

    scripts/cuda/toolkit.sh DIR; . DIR/env.sh; cargo build --release --features cudnn --bench peer
    scripts/cuda/launches.py DIR target/release/deps/peer-* [--arch resnet20] [--task reconstruct] [--unit layer3.1] [--markdown FILE]

The benchmark `peer` runs on a driver that only counts (`stand_in/driver.c`) 10 and 20 steps; the difference of the two is that of
10 steps, whatever is done once. Kernels do nothing, so losses mean nothing here. Numbers of a step that reports: losses and norms
are read.

--check ends with an error if a step of reconstruction copies to the device more than once, one of MetaAug more than four times (the rows
of two batches, and two orders of images), or either more than 4 KiB.
"""
import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from stand_in import environment, libraries  # noqa: E402


MOST_COPIES = {"reconstruct": 1, "meta": 4}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("toolkit", help="folder of scripts/cuda/toolkit.sh")
    parser.add_argument("peer", help="the benchmark, built with the feature cudnn")
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--task", default="reconstruct", choices=["reconstruct", "meta"])
    parser.add_argument("--unit", default="layer3.1")
    parser.add_argument("--markdown", help="where to add the table")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


def counts(folder, options, steps):
    """Calls and bytes of so many steps, by name."""
    path = f"{folder}/counts"
    request = {"task": options.task, "arch": options.arch, "unit": options.unit, "n": steps}
    done = subprocess.run([options.peer, "--device", "cuda:0"], input=json.dumps(request) + "\n", text=True, capture_output=True,
                          env=dict(environment(folder, options.toolkit), COUNTS=path))
    if done.returncode:
        sys.exit(f"{options.peer} ended with {done.returncode}: {done.stderr[-2000:]}")
    calls, sizes = collections.Counter(), collections.Counter()
    for line in open(path):
        count, size, name = line.rstrip("\n").split(" ", 2)
        calls[name], sizes[name] = int(count), int(size)
    return calls, sizes


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        libraries(folder)
        (few, few_bytes), (many, many_bytes) = (counts(folder, options, steps) for steps in (10, 20))
    per_step = {name: ((many[name] - few[name]) / 10, (many_bytes[name] - few_bytes[name]) / 10) for name in many}
    is_kernel = lambda name: name.startswith("kernel ") or re.match(r"cudnnConvolution|cublas.*[gG]emm", name)  # noqa: E731
    kernels = sum(count for name, (count, _) in per_step.items() if is_kernel(name))
    rows = [("kernels in all", kernels, 0)]
    rows += [(name, *per_step[name]) for name in ("fill", "copy to the device", "copy to the host", "copy on the device", "allocate") if name in per_step]
    listed = sorted(((count, name) for name, (count, _) in per_step.items() if is_kernel(name) and count), reverse=True)
    rows += [(name.removeprefix("kernel "), count, 0) for count, name in listed]
    lines = [f"## One step: {options.task} of {options.arch}, {options.unit}", "", "| what | times | bytes |", "|---|---:|---:|"]
    lines += [f"| {name} | {count:g} | {f'{size:.0f}' if size else ''} |" for name, count, size in rows]
    print("\n".join(lines))
    if options.markdown:
        with open(options.markdown, "a") as file:
            file.write("\n".join(lines) + "\n\n")
    copies, size = per_step.get("copy to the device", (0, 0))
    if options.check and (copies > MOST_COPIES[options.task] or size > 4096):
        sys.exit(f"{copies:g} copies of {size:.0f} bytes to the device in a step")


if __name__ == "__main__":
    main()
