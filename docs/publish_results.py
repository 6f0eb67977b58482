"""Copy what a run says to docs/results:  python docs/publish_results.py ray_results/RUN NAME [FOUND=SAID ...]

Tables, report, pictures and settings, each below 1 MiB: a larger table of latencies goes without its raw samples.
FOUND=SAID replaces, in the texts, a folder of the machine that ran it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

RESULTS = Path(__file__).with_name("results")
MOST_BYTES = 2**20
SAMPLES = ("samples_ms", "reference_ms")
COPIED = ("trials.parquet", "epochs.parquet", "importance.parquet", "latency.parquet", "front.parquet",
          "serving.parquet", "comparison.csv")  # fmt: skip


def publish(run: Path, folder: Path, said: Mapping[str, str]) -> None:
    """What of the run is there, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in [run / name for name in COPIED if (run / name).exists()] + sorted(run.glob("*.png")):
        shutil.copy(file, folder)
    for name in ("study.json", "report.md"):
        text = (run / name).read_text(encoding="utf-8")
        for found, instead in said.items():
            text = text.replace(found, instead)
        (folder / name).write_text(text, encoding="utf-8")
    latency = folder / "latency.parquet"
    if latency.stat().st_size > MOST_BYTES:
        table = pq.read_table(latency)
        for name in SAMPLES:  # empty, not dropped: the report reads it all the same
            column = table.schema.get_field_index(name)
            table = table.set_column(column, table.field(name), pa.nulls(len(table), table.field(name).type))
        pq.write_table(table, latency, compression="zstd")
    too_large = [
        f"{file} has {file.stat().st_size} bytes" for file in folder.iterdir() if file.stat().st_size > MOST_BYTES
    ]
    if too_large:
        sys.exit("\n".join(too_large))


if __name__ == "__main__":
    publish(Path(sys.argv[1]), RESULTS / sys.argv[2], dict(pair.split("=", 1) for pair in sys.argv[3:]))
