"""What stands beside accuracy: where classes differ in size, accuracy flatters (R21)."""

# pandas' own annotations leave these unknown:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from analysis.choose import Choice
from analysis.decide import grid_rows, is_measured
from analysis.frames import Run
from analysis.justify import percent
from analysis.markdown import fixed, table
from cifar_tune.config import REFERENCE


def text(run: Run, choice: Choice) -> str:
    """Balanced accuracy, AUROC, precision and recall of the references and the candidate; empty without labels."""
    grid = [r for r in grid_rows(run.latency) if is_measured(r) and r["balanced_accuracy"] is not None]
    chosen = None if choice.index is None else run.latency.loc[choice.index]
    shown = [
        r
        for r in grid
        if r["variant"] == REFERENCE.name
        or (chosen is not None and (r["trial_id"], r["variant"]) == (chosen["trial_id"], chosen["variant"]))
    ]
    if not run.labelled or not shown:
        return ""
    figures = ("test_accuracy", "balanced_accuracy", "auroc", "precision_score", "recall_score")
    lines = [
        (*(row[key] for key in ("model", "arm", "variant")), *(fixed(row[key], 2, 100) for key in figures))
        for row in shown
    ]
    header = ("Model", "Arm", "Variant", "Accuracy %", "Balanced %", "AUROC %", "Precision %", "Recall %")
    data = run.study["data"]
    classes = data["classes"]
    whose = f"are of class `{classes[1]}`" if len(classes) == 2 else "are means over the classes"
    return (
        f"## Beside accuracy\n\n{table(header, lines)}\n\nAll figures are of the test set. Precision, recall and the "
        f"area under the ROC curve {whose}. A model that always answers `{data['largest_class']}` has an accuracy of "
        f"{percent(data['largest_share'])}."
    )
