#!/usr/bin/env python3
"""Gives what reads files altered ones, for as long as wanted, and says how many and what it found.

    cargo install cargo-fuzz
    python3 scripts/fuzz.py --minutes 10

The targets are those of `fuzz/`. They begin with the files in `fuzz/seeds/`, with golden files of the tests, and with some that are made here; what they find
new goes to `fuzz/corpus/`, and what is wrong to `fuzz/artifacts/`, where `fuzz/target/*/release/TARGET FILE` shows it again. Two targets run at a time, with
the lowest priority. Needs Python 3.9 or newer, and a C++ compiler for libFuzzer.
"""

import argparse
import concurrent.futures
import gzip
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
FUZZ = REPOSITORY / "fuzz"
TARGETS = sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))
# Bytes of the longest input, where the default of the corpus is not meant.
LONGEST = {"checkpoint": 1 << 16, "parquet": 1 << 14, "image": 1 << 14, "record": 1 << 14}
LONGEST_SEED = 6000
# Seconds for one input, where 20 are too few on a busy machine: the files of CIFAR are 30 to 150 MB of zeros behind what is altered.
SLOWEST = {"cifar": 120}


def tensors(*items):
    """A safetensors file of (name, type, shape, bytes)."""
    header, data = {}, b""
    for name, kind, shape, content in items:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def idx(*extents):
    count = 1
    for extent in extents:
        count *= extent
    return bytes([0, 0, 8, len(extents)]) + struct.pack(f">{len(extents)}I", *extents) + bytes(at % 10 for at in range(count))


def golden_images():
    """The image files in the tests' golden values, by name."""
    content = (REPOSITORY / "tests/golden/images.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name.startswith("file/"):
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            yield name[5:].replace("/", "-"), content[begin:end]


def made():
    """The seeds of each target that are no files of their own."""
    floats = struct.pack("<16f", *range(16))
    pickles = (REPOSITORY / "tests/golden/pth").iterdir()
    shards = (REPOSITORY / "tests/golden/parquet").glob("*.parquet")
    grids = (REPOSITORY / "experiments").rglob("*.toml")
    images = sorted(golden_images())
    # Most of them are JPEG files that differ in their sampling.
    images = [image for at, image in enumerate(images) if "jpeg-" not in image[0] or at % 8 == 0]
    return {
        "cifar": {"ten": b"\2\3" + bytes(40), "hundred": b"\3\1\x63" + bytes(40), "short": b"\0" + bytes(3073)},
        "filter": {
            "all": "arch(resnet*) & bits(w2a2 | w2a4) & not status(failed)",
            "numbers": 'not (arch(resnet*) & run(/-s[0-4]-/)) | test(<80%) and started(>=2026-11-20) or tag("a (b)")',
            "keys": "all() | none() & !method(=genie-m) | recipe.drop-input(0.5) & seed(>=1) & tag(*)",
        },
        "grid": {path.stem: path.read_bytes() for path in grids},
        "idx": {
            "images": b"\2" + idx(2, 28, 28),
            "labels": b"\3" + idx(2),
            "images-zipped": b"\6" + gzip.compress(idx(2, 28, 28), mtime=0),
            "labels-zipped": b"\5" + gzip.compress(idx(3), mtime=0),
        },
        "image": dict(images),
        "parquet": {path.stem: path.read_bytes() for path in shards},
        "pickle": {path.stem: path.read_bytes() for path in pickles},
        "safetensors": {
            "two": tensors(("fc.weight", "F32", [4, 4], floats), ("fc.bias", "F16", [2], b"\0\x3c\0\x40"), ("n", "I64", [1], bytes(8))),
            "prefixed": tensors(("module.conv1.weight", "BF16", [2, 2, 2], bytes(16))),
        },
    }


def write_seeds():
    seeds = made()
    for target in TARGETS:
        corpus = FUZZ / "corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        for path in (FUZZ / "seeds" / target).glob("*"):
            shutil.copy(path, corpus)
        for name, content in seeds.get(target, {}).items():
            content = content.encode() if isinstance(content, str) else content
            if len(content) <= LONGEST_SEED:
                (corpus / name).write_bytes(content)


def build():
    subprocess.run(["cargo", "fuzz", "build", "--sanitizer", "none", "--release", "--codegen-units", "16"], cwd=REPOSITORY, check=True)
    [folder] = [path.parent for path in (FUZZ / "target").glob("*/release/grid")]
    return folder


def run(folder, target, minutes, logs):
    """One target: how many inputs it was given, and what was wrong."""
    artifacts = FUZZ / "artifacts" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    command = [
        folder / target,
        f"-max_total_time={round(60 * minutes)}",
        "-rss_limit_mb=2048",
        f"-timeout={SLOWEST.get(target, 20)}",
        f"-max_len={LONGEST.get(target, 1 << 13)}",
        "-print_final_stats=1",
        f"-artifact_prefix={artifacts}/",
        FUZZ / "corpus" / target,
    ]
    with open(logs / f"{target}.log", "w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, preexec_fn=lambda: os.nice(19)).returncode
    text = (logs / f"{target}.log").read_text(errors="replace")
    executions = re.search(r"number_of_executed_units: (\d+)", text) or re.search(r".*#(\d+)", text, re.DOTALL)
    coverage = re.findall(r"cov: (\d+)", text)
    panics = sorted(set(re.findall(r"PANIC: panicked at (\S+)", text)))
    print(f"| {target} | {executions and executions[1]} | {coverage and coverage[-1]} | {'-' if code == 0 else code} | {', '.join(panics) or '-'} |", flush=True)
    return code == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--logs", type=pathlib.Path, default=FUZZ / "artifacts")
    parser.add_argument("--binaries", type=pathlib.Path, help="where the targets are that were built already")
    arguments = parser.parse_args()
    write_seeds()
    folder = arguments.binaries or build()
    arguments.logs.mkdir(parents=True, exist_ok=True)
    print("| target | executions | edges covered | ended with | panics of dependencies, caught |\n|---|---|---|---|---|", flush=True)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        targets = arguments.targets or TARGETS
        ended = list(pool.map(lambda target: run(folder, target, arguments.minutes, arguments.logs), targets))
    sys.exit(0 if all(ended) else 1)


if __name__ == "__main__":
    main()
