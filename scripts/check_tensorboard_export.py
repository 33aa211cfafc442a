#!/usr/bin/env python3
"""Exports stored runs with `harness export --tensorboard` and reads them back with TensorBoard's EventAccumulator.

    python3 -m venv venv && venv/bin/pip install tensorboard
    venv/bin/python scripts/check_tensorboard_export.py --harness target/release/harness --results results

Compares scalars with all their steps (to the 32 bits that event files have) and the sizes of images with what the run
folders hold.
"""

import argparse
import json
import math
import pathlib
import re
import struct
import subprocess
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def part(name):
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return name.replace(".", "_") + "_" if set(name) <= {"."} else name


def same(written, value):
    if value is None:
        return math.isnan(written)
    return written == struct.unpack("f", struct.pack("f", value))[0]


def tensor_shapes(path):
    header_size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8:8 + header_size])
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def check_run(events, folder):
    record = json.loads((folder / "record.json").read_text())
    accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    for key in ("test_top1", "calib_top1", "fp_test_top1"):
        if record["metrics"]:
            [point] = accumulator.Scalars(f"accuracy/{key}")
            assert same(point.value, record["metrics"][key]), key
    points = 0
    for trace in json.loads((folder / "trace.json").read_text()):
        series = {f"loss/{part(trace['unit'])}/{part(trace['phase'])}": trace["loss"]}
        for term in trace.get("terms", []):
            series[f"gradient_norm/{part(trace['unit'])}/{part(term['name'])}"] = term["gradient_norm"]
        for key, values in series.items():
            written = accumulator.Scalars(key)
            assert [point.step for point in written] == trace["iterations"], key
            assert all(same(point.value, value) for point, value in zip(written, values)), key
            points += len(written)
    [cell] = accumulator.Tensors("cell")
    text = cell.tensor_proto.string_val[0].decode()
    assert re.sub("^    ", "", text, flags=re.M) == (folder / "cell.toml").read_text()
    images = 0
    if (folder / "pictures.safetensors").exists():
        count, _, height, width = tensor_shapes(folder / "pictures.safetensors")["x"]
        for index in range(count):
            for name in ("x", "T(x)", "difference"):
                [image] = accumulator.Images(f"{name}/{index}")
                assert (image.height, image.width) == (height, width)
                assert image.encoded_image_string.startswith(b"\x89PNG")
                assert struct.unpack(">II", image.encoded_image_string[16:24]) == (width, height)
                images += 1
    return points, images


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default="target/release/harness")
    parser.add_argument("--results", default="results", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        logs = pathlib.Path(temporary) / "logs"
        for _ in range(2):
            said = subprocess.run([arguments.harness, "export", "--results", arguments.results, "--tensorboard", logs],
                                  check=True, text=True, capture_output=True).stdout
            print(said, end="")
        files = sorted(logs.rglob("*tfevents*"))
        stored = sorted(path.parent for path in arguments.results.glob("*/runs/*/record.json"))
        exported = sorted(arguments.results / path.parts[-3] / "runs" / path.parts[-2] for path in files)
        assert exported == stored, set(stored) ^ set(exported)
        size = sum(path.stat().st_size for path in files)
        counts = [check_run(path.parent, arguments.results / path.parts[-3] / "runs" / path.parts[-2]) for path in files]
    points, images = (sum(column) for column in zip(*counts))
    print(f"{len(counts)} runs with {points} points and {images} images are the same in TensorBoard; {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
