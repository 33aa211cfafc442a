#!/usr/bin/env python3
"""Makes tests/golden/parquet/: small shards as the Hugging Face Hub stores them, written by pyarrow and Pillow.

usage: make_parquet_golden.py

Image `i` is 5 x 4 pixels of the one colour (10 i, 255 - 10 i, 100), a PNG; train holds images 0 to 6, validation 7 to 9; their fine
label is i % 3. `other/` holds the same images as other types, the last of them without an image. Needs pyarrow and Pillow (written
with 26.0 and 13.0). The same versions give the same bytes.
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
    (TARGET / "other").mkdir(parents=True, exist_ok=True)
    # Shards with row groups of other sizes, each with another compression.
    shards = [
        ("train-00000-of-00005", range(0, 3), "snappy", {"row_group_size": 2}),
        ("train-00001-of-00005", range(3, 4), "zstd", {}),
        ("train-00002-of-00005", range(4, 5), "gzip", {"data_page_version": "2.0"}),
        ("train-00003-of-00005", range(5, 6), "brotli", {}),
        ("train-00004-of-00005", range(6, 7), "lz4", {}),
        ("validation-00000-of-00001", range(7, 10), "none", {}),
    ]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, images, compression, options in shards:
        table = pa.table(
            {
                "img": pa.array([image(i) for i in images], struct),
                "fine_label": pa.array([i % 3 for i in images], pa.int64()),
                "coarse_label": pa.array([99 for _ in images], pa.int64()),
            }
        )
        pq.write_table(table, TARGET / f"{name}.parquet", compression=compression, **options)
    large = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    for name, images in [("train-00000-of-00001", range(0, 7)), ("validation-00000-of-00001", range(7, 10))]:
        rows = [image(i) if i < 9 else None for i in images]
        labels = pa.array([i % 3 for i in images], pa.int32()).dictionary_encode()
        table = pa.table({"img": pa.array(rows, large), "fine_label": labels})
        pq.write_table(table, TARGET / "other" / f"{name}.parquet", use_dictionary=["fine_label", "img.bytes"])
    print(f"{TARGET}: {sum(path.stat().st_size for path in TARGET.rglob('*.parquet'))} bytes")


if __name__ == "__main__":
    main()
