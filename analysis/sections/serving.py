"""The shipped candidate behind HTTP, beside its latency without a server (R25)."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.frames import Row, Run, rows
from analysis.markdown import fixed, table
from cifar_tune.config import Variant


def text(run: Run) -> str:
    """A row for each load that was tried; empty where the candidate was not served."""
    if run.card is None:
        return ""
    shipped = (run.card["trial_id"], Variant(**run.card["variant"]).name)
    loads = [r for r in rows(run.serving) if (r["trial_id"], r["variant"]) == shipped]
    if not loads:
        return ""
    first = loads[0]
    lines = [
        (
            row["users"],
            fixed(row["throughput"], 1),
            *(fixed(row[key], 2) for key in ("p50_ms", "p95_ms", "p99_ms")),
            row["failures"],
            row["meets"],
            fixed(row["together"], 1),
        )
        for row in loads
    ]
    kept = f"p95 within {first['p95_limit_ms']:g} ms"
    header = ("Users", "Images/s", "p50 ms", "p95 ms", "p99 ms", "Failed", kept, "Taken together")
    answered = "1 process answers" if first["replicas"] == 1 else f"{first['replicas']} processes answer"
    return (
        f"## Behind HTTP\n\n{serving_answer(loads)}\n\n{table(header, lines)}\n\n"
        f"The shipped variant is {first['variant']}. Without a server it takes {run.card['p50_ms']:.3f} ms.\n\n"
        f"{answered}. The users send PNG files from the same machine ({first['env_device_name']}), so they share its "
        "cores with the server. A user sends the next image when the last one is answered.\n\n"
        f"The server takes up to {first['batch']} waiting images at a time. Their average number stands under "
        '"Taken together". The model answers them one by one.'
    )


def serving_answer(loads: Sequence[Row]) -> str:
    """The highest load that keeps the limit of p95, in a sentence."""
    limit = loads[0]["p95_limit_ms"]
    kept = [row for row in loads if row["meets"]]
    if not kept:
        return f"No load that was tried keeps p95 within {limit:g} ms without failures."
    best = max(kept, key=lambda row: row["throughput"])
    return (
        f"The highest load that keeps p95 within {limit:g} ms: {best['throughput']:.0f} images/s from "
        f"{best['users']} users, p50 {best['p50_ms']:.2f} ms, p95 {best['p95_ms']:.2f} ms."
    )
