#!/usr/bin/env python3
"""Runs quantized networks in onnxruntime and compares every prediction with the harness's.

    python3 -m venv venv && venv/bin/pip install onnx onnxruntime numpy
    venv/bin/python scripts/check_onnx_export.py --harness target/release/harness

Has the harness quantize both embedded networks by several methods to W8A8, W4A4, W2A4 and W2A2 with --save-model, exports each, has
`onnx.checker` check it in full, and classifies the 10,000 test images of Fashion-MNIST. Both sides add in another order, so that an activation
that lies on the border between two levels, within the last bits of f32, may fall on either: an image that is classified otherwise is shown as
such a tie where some images that differ from it by a millionth of a standard deviation at most are of the harness's class. Fails where more
than --ties of 10,000 are classified otherwise, or one that is no tie. Prints sizes and times beside full precision's.
"""

import argparse
import gzip
import json
import pathlib
import subprocess
import tempfile
import time

import numpy
import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCH = 250
# Differing images of a run that are explained.
SHOWN = 10
GRID = """
name = "onnx"
save-model = true
[base]
calib-images = 256
recipe = {{ iterations = {iterations}, batch = 32 }}
[axes]
arch = ["resnet20", "mobilenetv2-tiny"]
bits = [{bits}]
method = [{methods}]
[[include]]
arch = "resnet20"
bits = "W32A32"
method = "rtn"
[[include]]
arch = "mobilenetv2-tiny"
bits = "W32A32"
method = "rtn"
"""


def idx(name, header):
    return numpy.frombuffer(gzip.open(ROOT / "assets/fashion-mnist" / f"{name}-ubyte.gz").read()[header:], numpy.uint8)


def images(preprocess):
    """The test images as `config.json` says: (level / 255 - mean) / std, in f32."""
    levels = idx("test-images-idx3", 16).reshape(-1, 1, 28, 28).astype(numpy.float32)
    mean, std = (numpy.float32(preprocess[key][0]) for key in ("mean", "std"))
    return (levels / numpy.float32(255) - mean) / std


def tensors(path):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:8 + size]), content[8 + size:]
    header.pop("__metadata__", None)
    read = lambda entry: numpy.frombuffer(data[slice(*entry["data_offsets"])], numpy.uint32)
    return {name: read(entry) for name, entry in header.items() if entry["dtype"] == "U32"}


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that wait in busy loops would be timed beside whatever else the machine does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def logits(model, x):
    return numpy.concatenate([model.run(["logits"], {"images": x[i:i + BATCH]})[0] for i in range(0, len(x), BATCH)])


def explanation(model, x, index, ours):
    """Why image `index` may as well be of class `ours`; None if nothing says so."""
    image, random = x[index:index + 1], numpy.random.default_rng(0)
    mine = logits(model, image)[0]
    gap = numpy.sort(mine)[-1] - mine[ours]
    for size in (1e-7, 3e-7, 1e-6):
        noise = random.standard_normal((BATCH, *image.shape[1:])).astype(numpy.float32)
        share = (logits(model, image + numpy.float32(size) * noise).argmax(1) == ours).mean()
        if share > 0:
            return f"of images that differ from it by {size:g}, {100 * share:.0f} % are of class {ours}; its logits are {gap:.2g} apart"
    return None


def check_run(folder, path):
    onnx.checker.check_model(str(path), full_check=True)
    config = json.loads((folder / "config.json").read_text())
    x, stored = images(config["preprocess"]), tensors(folder / "predictions.safetensors")["test"]
    model = session(path)
    classes = logits(model, x).argmax(1)
    differing = numpy.flatnonzero(classes != stored)
    # So many are no ties.
    explained = differing[:SHOWN]
    ties = [(int(i), explanation(model, x, i, stored[i])) for i in explained]
    return len(x), len(differing), ties


def milliseconds(path, x, repeats=10):
    model, batch = session(path), x[:BATCH]
    model.run(None, {"images": batch})
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.run(None, {"images": batch})
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--harness", default="target/release/harness")
    parser.add_argument("--methods", default="rtn,adaround,brecq,qdrop,flexround,genie-m")
    parser.add_argument("--bits", default="W8A8,W4A4,W2A4,W2A2")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--ties", type=int, default=1, help="how many of 10,000 images may be ties")
    parser.add_argument("--results", type=pathlib.Path, help="keep the runs here, and use those that are there")
    arguments = parser.parse_args()
    harness = str(pathlib.Path(arguments.harness).resolve())
    quoted = lambda names: ", ".join(f'"{name}"' for name in names.split(","))
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        results = (arguments.results or work / "results").resolve()
        grid = GRID.format(iterations=arguments.iterations, bits=quoted(arguments.bits), methods=quoted(arguments.methods))
        (work / "grid.toml").write_text(grid)
        subprocess.run([harness, "run", "grid.toml", "--quiet", "--results", str(results)], cwd=work, check=True)
        runs = [json.loads(path.read_text()) for path in sorted(results.glob("onnx/runs/*/record.json"))]
        # Those of other arguments may lie there too.
        asked = lambda cell: cell["bits"] == "W32A32" or (
            cell["method"] in arguments.methods.split(",") and cell["bits"] in arguments.bits.split(","))
        runs = [run for run in runs if asked(run["cell"])]
        baseline = {}
        print(f"{'run':45} {'top-1':>7} {'other':>5} {'bytes':>9} {'of full':>8} {'ms/250':>8} {'of full':>8}")
        for run in sorted(runs, key=lambda run: run["cell"]["bits"] != "W32A32"):
            folder, path = results / "onnx/runs" / run["run_id"], work / "model.onnx"
            subprocess.run([harness, "export", "--onnx", str(path), str(folder)], check=True, stdout=subprocess.DEVNULL)
            count, differing, ties = check_run(folder, path)
            x = images(json.loads((folder / "config.json").read_text())["preprocess"])
            size, time_ms, arch = path.stat().st_size, milliseconds(path, x), run["cell"]["arch"]
            full_size, full_ms = baseline.setdefault(arch, (size, time_ms))
            print(f"{run['run_id']:45} {100 * run['metrics']['test_top1']:7.2f} {differing:5} {size:9} {size / full_size:8.2f}"
                  f" {time_ms:8.1f} {time_ms / full_ms:8.2f}", flush=True)
            for index, why in ties:
                print(f"    image {index}: {why or 'NOT A TIE'}", flush=True)
            allowed = arguments.ties * count / 10_000
            failures += differing > allowed or any(why is None for _, why in ties)
    print("all predictions are the harness's, but for the ties shown" if not failures else f"{failures} runs FAILED")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
