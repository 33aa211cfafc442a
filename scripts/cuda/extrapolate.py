#!/usr/bin/env python3
"""Prints what the cells of a folder of results took, as Markdown, and what they would take with the published iterations.

    scripts/cuda/extrapolate.py RESULTS

Training takes its time per iteration of each phase, from the traces, times the published iterations: 20,000 per unit, 500 of
MetaAug's. Everything else (searches, passes between units, evaluation, the warm-up of a transform network) stays as it was.
"""
import json
import pathlib
import sys

PUBLISHED = {"weights": 20_000, "activations": 5_000, "meta": 500}


def main():
    print("| cell | seconds | of them training | iterations per unit | ms per iteration | published length, hours |\n|---|---:|---:|---:|---:|---:|")
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*/runs/*/record.json")):
        record = json.loads(path.read_text())
        if record["metrics"] is None:
            print(f"| {path.parent.name} | failed: {record['error']} | | | | |")
            continue
        wall = record["cost"]["wall_s"]
        traces = json.loads((path.parent / "trace.json").read_text())
        training = sum(trace["wall_s"] for trace in traces)
        whole = wall - training
        iterations, rates = [], []
        for phase in dict.fromkeys(trace["phase"] for trace in traces):
            of_phase = [trace for trace in traces if trace["phase"] == phase]
            n = of_phase[0]["iterations"][-1]
            per_iteration = sum(trace["wall_s"] for trace in of_phase) / n
            whole += per_iteration * PUBLISHED.get(phase, n)
            iterations.append(f"{phase} {n}")
            rates.append(f"{per_iteration / len(of_phase) * 1e3:.1f}")
        row = (path.parent.name, f"{wall:.1f}", f"{training:.1f}", ", ".join(iterations), ", ".join(rates), f"{whole / 3600:.2f}")
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
