#!/usr/bin/env python3
"""Runs quantized networks in onnxruntime and compares every prediction with the harness's.

    python3 -m venv venv && venv/bin/pip install onnx onnxruntime numpy pillow pyarrow
    venv/bin/python scripts/check_onnx_export.py --harness target/release/harness --ties 10
    venv/bin/python scripts/check_onnx_export.py --dataset cifar-10 --data FOLDER --arch resnet20 --weights file:FOLDER/model.safetensors \\
        --methods rtn,genie-m --bits W8A8,W4A4 --iterations 20 --calib-images 64 --ties 10
    venv/bin/python scripts/check_onnx_export.py --dataset imagenet --data FOLDER --arch efficientnet-lite0 --weights file:FOLDER/pytorch_model.bin \\
        --methods rtn,genie-m,metaaug --bits W8A8 --iterations 10 --calib-images 32 --batch 50 --ties 200

Has the harness quantize both embedded networks by every method to W8A8, W4A4, W2A4 and W2A2 with --save-model, exports each, has
`onnx.checker` check it in full, and classifies the 10,000 test images of Fashion-MNIST; or those of Parquet files in FOLDER, which Pillow
decodes and resizes as the network's `config.json` says. Both sides add in another order, so that an activation that lies on the border
between two levels, within the last bits of f32, may fall on either, and the layers behind it make of that what they make of another input: an
image that is classified otherwise is shown as such a tie where the same network with other last bits is of the harness's class, that is one
whose biases differ by a millionth of their size at most. Fails where more than --ties of 10,000 are classified otherwise, or one that is no
tie. Prints sizes, and the milliseconds that one thread takes for a batch, beside full precision's.
"""

import argparse
import gzip
import io
import json
import math
import pathlib
import subprocess
import tempfile
import time

import numpy
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Differing images of a run that are explained.
SHOWN = 40
# Networks with slightly other biases that are asked about each.
NEIGHBOURS = 100
METHODS = "rtn,adaround,brecq,qdrop,flexround,pd-quant,genie-m,metaaug"
GRID = """
name = "onnx"
save-model = true
[base]
dataset = "{dataset}"
calib-images = {calib_images}
recipe = {{ iterations = {iterations}, batch = {batch} }}
meta = {{ iterations = 2, batch = {batch}, outer-batch = {batch} }}
transform = {{ base = 4, depth = 2, warmup-iterations = 4 }}
{more}
[axes]
arch = [{archs}]
bits = [{bits}]
method = [{methods}]
"""
# What the others are compared with.
FULL_PRECISION = """
[[include]]
arch = "{arch}"
bits = "W32A32"
method = "rtn"
"""
# No other method corrects inputs, and refuses to be told how often.
PD_QUANT = """
[[include]]
arch = "{arch}"
bits = "{bits}"
method = "pd-quant"
recipe = {{ iterations = {iterations}, batch = {batch}, correction-iterations = {iterations} }}
"""


def idx(name, header):
    return numpy.frombuffer(gzip.open(ROOT / "assets/fashion-mnist" / f"{name}-ubyte.gz").read()[header:], numpy.uint8)


def embedded(_):
    """Levels of the embedded test images, (N, 1, 28, 28)."""
    return idx("test-images-idx3", 16).reshape(-1, 1, 28, 28)


def of_parquet(folder):
    """Gives a function that reads the levels of all test images in the Parquet files of `folder`, as `preprocess` says, (N, 3, H, W)."""
    import pyarrow.parquet
    from PIL import Image

    def levels(file, preprocess):
        (height, width), side = preprocess["crop"], preprocess["resize"]
        assert preprocess.get("crop-mode", "center") == "center", preprocess
        image = Image.open(io.BytesIO(file)).convert("RGB")
        short, long = sorted(image.size)
        sides = {short: side, long: int(side * long / short)}
        image = image.resize([sides[side] for side in image.size], Image.Resampling[preprocess["interpolation"].upper()])
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return numpy.asarray(image.crop((left, top, left + width, top + height))).transpose(2, 0, 1)

    def read(preprocess):
        found = []
        for path in sorted(path for path in folder.glob("*.parquet") if path.name.startswith(("test-", "validation-"))):
            table = pyarrow.parquet.read_table(path)
            column = next(name for name in ("image", "img") if name in table.column_names)
            found += [levels(image["bytes"], preprocess) for image in table[column].to_pylist()]
        return numpy.stack(found)

    return read


def images(read, config):
    """The test images as `config.json` says: (level / 255 - mean) / std, in f32."""
    preprocess = config["preprocess"]
    mean, std = (numpy.float32(preprocess[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    return (read(preprocess).astype(numpy.float32) / numpy.float32(255) - mean) / std


def tensors(path):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:8 + size]), content[8 + size:]
    header.pop("__metadata__", None)
    read = lambda entry: numpy.frombuffer(data[slice(*entry["data_offsets"])], numpy.uint32)
    return {name: read(entry) for name, entry in header.items() if entry["dtype"] == "U32"}


def session(path, threads=0):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Threads that wait in busy loops would be timed beside whatever else the machine does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def logits(model, x, batch):
    return numpy.concatenate([model.run(["logits"], {"images": x[i:i + batch]})[0] for i in range(0, len(x), batch)])


def explanation(path, image, mine, ours):
    """Why `image`, (1, C, H, W), of which onnxruntime has the logits `mine`, may as well be of class `ours`; None if nothing says so."""
    model, random = onnx.load(str(path)), numpy.random.default_rng(0)
    gap = mine.max() - mine[ours]
    biases = [(tensor, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer if tensor.name.endswith(".bias")]

    def class_beside(size):
        for tensor, bias in biases:
            noise = random.standard_normal(bias.shape) * numpy.sqrt(numpy.mean(bias ** 2))
            tensor.CopyFrom(numpy_helper.from_array((bias + size * noise).astype(numpy.float32), tensor.name))
        return logits(session(model.SerializeToString()), image, 1).argmax()

    for size in (1e-7, 3e-7, 1e-6):
        for neighbour in range(1, NEIGHBOURS + 1):
            if class_beside(size) == ours:
                return f"network {neighbour} of those with biases that differ by {size:g} says {ours}; its logits are {gap:.2g} apart"
    return None


def check_run(folder, path, x, batch):
    onnx.checker.check_model(str(path), full_check=True)
    stored = tensors(folder / "predictions.safetensors")["test"]
    found = logits(session(path), x, batch)
    differing = numpy.flatnonzero(found.argmax(1) != stored)
    # So many are no ties.
    explained = differing[:SHOWN]
    return len(differing), [(int(i), explanation(path, x[i:i + 1], found[i], stored[i])) for i in explained]


def milliseconds(path, x, repeats=5):
    """Of one processor for all of `x`, whatever else the machine does."""
    model = session(path, threads=1)
    model.run(None, {"images": x})
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        model.run(None, {"images": x})
        times.append(time.thread_time() - start)
    return 1000 * min(times)


def grid(arguments):
    archs, bits, methods = (names.split(",") for names in (arguments.arch, arguments.bits, arguments.methods))
    quoted = lambda names: ", ".join(f'"{name}"' for name in names)
    more = {"data": f"parquet:{arguments.data.resolve()}" if arguments.data else None, "weights": arguments.weights}
    fields = {"dataset": arguments.dataset, "calib_images": arguments.calib_images, "iterations": arguments.iterations,
              "batch": min(32, arguments.calib_images // 4), "more": "\n".join(f'{key} = "{value}"' for key, value in more.items() if value)}
    simple = [method for method in methods if method != "pd-quant"] or ["rtn"]
    text = GRID.format(archs=quoted(archs), bits=quoted(bits), methods=quoted(simple), **fields)
    text += "".join(FULL_PRECISION.format(arch=arch) for arch in archs)
    if "pd-quant" in methods:
        text += "".join(PD_QUANT.format(arch=arch, bits=width, **fields) for arch in archs for width in bits)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--harness", default="target/release/harness")
    parser.add_argument("--arch", default="resnet20,mobilenetv2-tiny")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--bits", default="W8A8,W4A4,W2A4,W2A2")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--calib-images", type=int, default=256)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--data", type=pathlib.Path, help="a folder of Parquet files; without it the embedded images")
    parser.add_argument("--weights", help="as in a grid")
    parser.add_argument("--batch", type=int, default=250, help="images at once in onnxruntime")
    parser.add_argument("--ties", type=int, default=1, help="how many of 10,000 images may be ties")
    parser.add_argument("--results", type=pathlib.Path, help="keep the runs here, and use those that are there")
    arguments = parser.parse_args()
    harness, batch = str(pathlib.Path(arguments.harness).resolve()), arguments.batch
    read = of_parquet(arguments.data) if arguments.data else embedded
    failures, inputs, full = 0, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        results = (arguments.results or work / "results").resolve()
        (work / "grid.toml").write_text(grid(arguments))
        subprocess.run([harness, "run", "grid.toml", "--quiet", "--results", str(results)], cwd=work, check=True)
        runs = [json.loads(path.read_text()) for path in sorted(results.glob("onnx/runs/*/record.json"))]
        # Those of other arguments may lie there too.
        asked = lambda cell: cell["arch"] in arguments.arch.split(",") and cell["dataset"] == arguments.dataset and (
            cell["bits"] == "W32A32" or cell["method"] in arguments.methods.split(",") and cell["bits"] in arguments.bits.split(","))
        runs = [run for run in runs if asked(run["cell"])]
        print(f"{'run':45} {'top-1':>7} {'other':>5} {'bytes':>9} {'of full':>8} {f'ms/{batch}':>8} {'of full':>8}")
        for run in sorted(runs, key=lambda run: run["cell"]["bits"] != "W32A32"):
            folder, path = results / "onnx/runs" / run["run_id"], work / "model.onnx"
            subprocess.run([harness, "export", "--onnx", str(path), str(folder)], check=True, stdout=subprocess.DEVNULL)
            arch, config = run["cell"]["arch"], json.loads((folder / "config.json").read_text())
            if arch not in inputs:
                inputs[arch] = images(read, config)
            x = inputs[arch]
            differing, ties = check_run(folder, path, x, batch)
            size, time_ms = path.stat().st_size, milliseconds(path, x[:batch])
            full_size, full_ms = full.setdefault(arch, (size, time_ms))
            print(f"{run['run_id']:45} {100 * run['metrics']['test_top1']:7.2f} {differing:5} {size:9} {size / full_size:8.2f}"
                  f" {time_ms:8.1f} {time_ms / full_ms:8.2f}", flush=True)
            for index, why in ties:
                print(f"    image {index}: {why or 'NOT A TIE'}", flush=True)
            allowed = math.ceil(arguments.ties * len(x) / 10_000)
            failures += differing > allowed or any(why is None for _, why in ties)
    print("all predictions are the harness's, but for the ties shown" if not failures else f"{failures} runs FAILED")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
