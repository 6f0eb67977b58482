"""Copy what a run says to docs/results:  python docs/publish_results.py ray_results/RUN NAME [FOUND=SAID ...]

Tables, report, pictures and settings, each below 1 MiB: a larger table of latencies has its raw samples rounded to a
tenth of a microsecond and, where that is not enough, goes without them; its report says so.
FOUND=SAID replaces, in the texts, a folder of the machine that ran it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

RESULTS = Path(__file__).with_name("results")
MOST_BYTES = 2**20
SAMPLES = ("samples_ms", "reference_ms", "anchor_ms")
COPIED = ("trials.parquet", "epochs.parquet", "importance.parquet", "latency.parquet", "front.parquet",
          "serving.parquet", "comparison.csv")  # fmt: skip


def publish(run: Path, folder: Path, said: Mapping[str, str]) -> None:
    """What of the run is there, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in [run / name for name in COPIED if (run / name).exists()] + sorted(run.glob("*.png")):
        shutil.copy(file, folder)
    card = run / "candidate" / "candidate.json"
    if card.exists():  # without it a report says nothing of the candidate's check, nor of its load test
        (folder / "candidate").mkdir()
        shutil.copy(card, folder / "candidate")
    for name in ("study.json", "report.md"):
        text = (run / name).read_text(encoding="utf-8")
        for found, instead in said.items():
            text = text.replace(found, instead)
        (folder / name).write_text(text, encoding="utf-8")
    shrink(folder / "latency.parquet", folder / "report.md")
    too_large = [
        f"{file} has {file.stat().st_size} bytes" for file in folder.iterdir() if file.stat().st_size > MOST_BYTES
    ]
    if too_large:
        sys.exit("\n".join(too_large))


def shrink(latency: Path, report: Path) -> None:
    """Write a table of latencies that is too large anew."""
    if latency.stat().st_size <= MOST_BYTES:
        return
    table = pq.read_table(latency)
    pq.write_table(with_samples(table, rounded), latency, compression="zstd", compression_level=19)
    if latency.stat().st_size > MOST_BYTES:
        pq.write_table(with_samples(table, lambda _: None), latency, compression="zstd", compression_level=19)
        text = report.read_text(encoding="utf-8")
        report.write_text(text.replace("with raw samples", "without its raw samples, for their size"), encoding="utf-8")


def rounded(repeats: list[list[float]] | None) -> list[list[float]] | None:
    """A row's samples in milliseconds, to a tenth of a microsecond."""
    return None if repeats is None else [[round(sample, 4) for sample in repeat] for repeat in repeats]


def with_samples(table: pa.Table, change: Callable[[Any], Any]) -> pa.Table:
    """The table with each row's samples changed; the columns stay, so that a report reads it all the same."""
    for name in SAMPLES:
        column = table.schema.get_field_index(name)
        values = [change(repeats) for repeats in table[name].to_pylist()]
        table = table.set_column(column, table.field(name), pa.array(values, table.field(name).type))
    return table


if __name__ == "__main__":
    publish(Path(sys.argv[1]), RESULTS / sys.argv[2], dict(pair.split("=", 1) for pair in sys.argv[3:]))
