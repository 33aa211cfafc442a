#!/usr/bin/env python3
"""Compares the runs of the same cells on two devices, and of the same cells twice on one, and prints Markdown.

    scripts/cuda/compare_runs.py CPU GPU [AGAIN]        folders of results (`harness run --results`)

Per cell: test accuracy on both, share of test images with the same predicted class, and how far the losses are apart: at the
first iteration of the first unit, where only the order of sums differs, and the largest distance of the losses that units end
with, relative to those on the CPU. AGAIN: whether predictions and losses are the same, bit for bit, as in GPU.
"""
import array
import json
import pathlib
import struct
import sys


class Run:
    def __init__(self, folder):
        self.folder = folder
        self.record = json.loads((folder / "record.json").read_text())
        self.metrics = self.record["metrics"]

    def predictions(self):
        """Classes of the test images."""
        data = (self.folder / "predictions.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        start, end = json.loads(data[8 : 8 + length])["test"]["data_offsets"]
        return array.array("I", data[8 + length + start : 8 + length + end])

    def traces(self):
        """Of every unit and phase, without the times."""
        traces = json.loads((self.folder / "trace.json").read_text())
        return [{key: value for key, value in trace.items() if key != "wall_s"} for trace in traces]

    def is_same(self, other):
        files = [(run.folder / "predictions.safetensors").read_bytes() for run in (self, other)]
        return files[0] == files[1], self.traces() == other.traces()


def runs(folder):
    """By experiment and run id."""
    found = sorted(pathlib.Path(folder).glob("*/runs/*/record.json"))
    return {(path.parts[-4], path.parts[-2]): Run(path.parent) for path in found}


def distance(a, b):
    if a is None or b is None:
        return float("nan")
    return abs(a - b) / abs(a) if a else abs(b)


def row(name, cpu, gpu):
    seconds = f"{gpu.record['cost']['wall_s']:.1f}"
    if cpu is None:
        return [name, "not run", percent(gpu), "", "", "", seconds]
    a, b = cpu.predictions(), gpu.predictions()
    same = sum(x == y for x, y in zip(a, b)) / len(a)
    pairs = list(zip(cpu.traces(), gpu.traces()))
    losses = [distance(x["loss"][-1], y["loss"][-1]) for x, y in pairs if x["loss"]]
    first = f"{distance(pairs[0][0]['loss'][0], pairs[0][1]['loss'][0]):.1e}" if losses else ""
    return [name, percent(cpu), percent(gpu), f"{same:.2%}", first, f"{max(losses):.1e}" if losses else "", seconds]


def percent(run):
    return f"{run.metrics['test_top1']:.2%}"


def main():
    cpu, gpu, again = (runs(folder) for folder in (*sys.argv[1:], "")[:3])
    head = ["cell", "test top-1, CPU", "GPU", "same predictions", "first loss apart", "last losses apart", "GPU s"]
    print("| " + " | ".join(head) + " |\n|---|" + "---:|" * (len(head) - 1))
    problems = []
    for key, run in gpu.items():
        if run.metrics is None:
            problems.append(f"{key[1]} failed on the GPU: {run.record['error']}")
            continue
        other = cpu.get(key)
        print("| " + " | ".join(row(key[1], other if other and other.metrics else None, run)) + " |")
    problems += [f"{key[1]} was not run on the GPU" for key in cpu if key not in gpu]
    both = [(key, run, again[key]) for key, run in gpu.items() if key in again and run.metrics and again[key].metrics]
    if both:
        same = [run.is_same(other) for _, run, other in both]
        print(f"\nRun twice on the GPU, each with a cache of its own: of {len(both)} cells, {sum(p for p, _ in same)} have the same ", end="")
        print(f"predictions and {sum(t for _, t in same)} the same losses, bit for bit.")
        problems += [f"{key[1]} differs when it is run again" for (key, *_), pair in zip(both, same) if not all(pair)]
    for problem in problems:
        print(f"\n- {problem}" if problem is problems[0] else f"- {problem}")


if __name__ == "__main__":
    main()
