"""What the figures were measured with, and how to run it again."""

from __future__ import annotations

from analysis.frames import Run
from analysis.markdown import table


def text(run: Run) -> str:
    """Data, command, machine and versions, a row each."""
    study, data = run.study, run.study["data"]
    images = ", ".join(f"{data[f'{split}_images']:,} {split}" for split in ("train", "validation", "test"))
    lines = [
        ("created", study["created_utc"]),
        ("command", f"`{study['command']}`"),
        ("data", f"{data['label']}, {len(data['classes'])} classes: {images} images"),
        ("data fingerprint", data["fingerprint"]),
        *study["environment"].items(),
    ]
    return f"## Machine and versions\n\n{table(('', ''), lines)}\n\nThe whole configuration is in `study.json`."
