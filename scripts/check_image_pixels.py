#!/usr/bin/env python3
"""Compares what `harness pixels` makes of image files with what Pillow's Image.open(...).convert("RGB") makes of them.

    pip install numpy pillow pyarrow
    cargo build --release && python3 scripts/check_image_pixels.py [DATA ...]

Files are made here (samplings x modes x sizes of JPEG, kinds of their own, damaged ones, other formats), which needs cjpeg and
jpegtran of libjpeg-turbo; then every image in the Parquet files and folders under DATA is compared. HARNESS names another binary.

Prints counts and what differs; exit code 1 if levels differ, or if one refuses what the other reads.
"""
import hashlib
import io
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from PIL import Image

import image_kinds

ROOT = Path(__file__).resolve().parent.parent
HARNESS = Path(os.environ.get("HARNESS", ROOT / "target/release/harness")).resolve()


RIGHT = {"equal", "both refuse", "refused by design"}


def pillows(file):
    try:
        image = Image.open(io.BytesIO(file)).convert("RGB")
    except Exception as error:
        return f"error {error}"
    return f"{hashlib.sha256(image.tobytes()).hexdigest()} {image.height} {image.width}"


def ours(files, folder):
    paths = []
    for number, file in enumerate(files):
        path = folder / f"{number:06}"
        path.write_bytes(file)
        paths.append(path)
    found = subprocess.run([HARNESS, "pixels", *paths], stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert len(found) == len(files), found[-1:]
    return found


def compare(title, files):
    """Compares (name, bytes) pairs; the number that differ."""
    counts = {"equal": 0, "both refuse": 0, "refused by design": 0, "differ": 0, "only Pillow reads": 0, "only the harness reads": 0}
    files = iter(files)
    while part := list(itertools.islice(files, 500)):
        with tempfile.TemporaryDirectory() as folder:
            for (name, file), own in zip(part, ours([file for _, file in part], Path(folder))):
                theirs = pillows(file)
                refused = own.startswith("error"), theirs.startswith("error")
                what = {
                    (True, True): "both refuse",
                    (True, False): "only Pillow reads",
                    (False, True): "only the harness reads",
                    (False, False): "equal" if own == theirs else "differ",
                }[refused]
                if what == "only Pillow reads" and name in image_kinds.REFUSED:
                    what = "refused by design"
                counts[what] += 1
                if what not in RIGHT:
                    print(f"  {name}: {what} ({own if refused[0] else theirs})")
    print(f"{title}: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count))
    return sum(count for what, count in counts.items() if what not in RIGHT)


def matrix():
    for sampling in image_kinds.SAMPLINGS:
        for number, size in enumerate(image_kinds.SIZES):
            for mode, file in image_kinds.of_sampling(image_kinds.picture(*size, number), sampling).items():
                yield f"{sampling} {mode} {size[0]}x{size[1]}", file


def stored(data):
    """Images of Parquet files and of folders."""
    import pyarrow.parquet

    for path in sorted(data.rglob("*")):
        if path.suffix == ".parquet":
            table = pyarrow.parquet.ParquetFile(path)
            column = next(name for name in ("image", "img") if name in table.schema_arrow.names)
            rows = itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in table.iter_batches(500, columns=[column]))
            for row, image in enumerate(rows):
                yield f"{path}, row {row}", image["bytes"]
        elif path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"):
            yield str(path), path.read_bytes()


def main():
    warnings.simplefilter("ignore")
    wrong = 0
    if shutil.which("cjpeg") and shutil.which("jpegtran"):
        wrong += compare("JPEG, samplings x modes x sizes", matrix())
        wrong += compare("JPEG of kinds of their own", image_kinds.singles().items())
        wrong += compare("damaged JPEG", image_kinds.altered().items())
        wrong += compare("other formats", image_kinds.others().items())
    else:
        print("skipped what is made here: there is no cjpeg and jpegtran")
    for data in map(Path, sys.argv[1:]):
        if data.exists():
            wrong += compare(str(data), stored(data))
        else:
            print(f"skipped {data}: there is no such folder")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
