"""What only a fresh interpreter shows: what an import brings with it, and what a command says first."""

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import distill_search

ROOT = Path(__file__).resolve().parents[2]


def test_analysis_runs_without_torch_ray_and_optuna() -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'ray', 'optuna')))"
    asked = f"{block}; import analysis.report, analysis.__main__"
    assert subprocess.run([sys.executable, "-c", asked], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cifar_tune.tuning.proxies", "torch"),  # its workers hold resources, and start for each step anew
        ("cifar_tune.records", "torch"),  # these workers pass on what the workbench answers
        ("cifar_tune.shipping.shipment", "torch"),
        ("cifar_tune.tuning.trainables", "torch._dynamo"),  # a training compiles nothing
    ],
)
def test_worker_of_a_trial_does_not_import_what_it_does_not_use(module: str, heavy: str) -> None:
    asked = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], cwd=ROOT, check=False).returncode == 0


def test_a_wrong_flag_as_a_user_sees_it(tmp_path: Path) -> None:
    script = Path(distill_search.__file__)
    ended = subprocess.run(
        [sys.executable, script, "--preset", "quick", "--num-sample", "3"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "options: --num-sample, 3; perhaps you meant --num-samples (see --help)" in ended.stderr
    assert list(tmp_path.iterdir()) == []
