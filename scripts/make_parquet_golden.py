#!/usr/bin/env python3
"""Makes tests/golden/parquet/: small shards as the Hugging Face Hub stores them, written by pyarrow and Pillow.

usage: make_parquet_golden.py

Image `i` is 5 x 4 pixels of the one colour (10 i, 255 - 10 i, 100), a PNG; train holds images 0 to 6, validation 7 to 9; their fine
label is i % 3. Needs pyarrow and Pillow (written with 26.0 and 13.0). The same versions give the same bytes.
"""
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TARGET = Path(__file__).resolve().parent.parent / "tests" / "golden" / "parquet"


def image(i):
    file = io.BytesIO()
    Image.new("RGB", (4, 5), (10 * i, 255 - 10 * i, 100)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{i}.png"}


def main():
    TARGET.mkdir(parents=True, exist_ok=True)
    # Two shards with row groups of other sizes, each with another compression.
    shards = [
        ("train-00000-of-00002", range(0, 5), "snappy", 2),
        ("train-00001-of-00002", range(5, 7), "zstd", 100),
        ("validation-00000-of-00001", range(7, 10), "none", 100),
    ]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, images, compression, rows in shards:
        table = pa.table(
            {
                "img": pa.array([image(i) for i in images], struct),
                "fine_label": pa.array([i % 3 for i in images], pa.int64()),
                "coarse_label": pa.array([99 for _ in images], pa.int64()),
            }
        )
        pq.write_table(table, TARGET / f"{name}.parquet", compression=compression, row_group_size=rows)
    print(f"{TARGET}: {sum(path.stat().st_size for path in TARGET.iterdir())} bytes")


if __name__ == "__main__":
    main()
