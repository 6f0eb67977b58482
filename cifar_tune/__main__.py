"""One training, one evaluation, one measurement, without a sweep.

python -m cifar_tune train --model mobilenet_v3_small --data digits --epochs 3
python -m cifar_tune evaluate --model mobilenet_v3_small --checkpoint model.safetensors --data digits
python -m cifar_tune bench --model mobilenet_v3_small --compile default

Installed, they are `cifar-tune train`, `cifar-tune evaluate` and `cifar-tune bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from cifar_tune import cli
from cifar_tune.commands import bench, evaluate, train

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train.main,
    "evaluate": evaluate.main,
    "bench": bench.main,
}


def main(argv: Sequence[str]) -> None:
    """Run one command; usage errors exit with 2 and one line."""
    if not argv or argv[0] not in COMMANDS:
        if argv and argv[0] in ("-h", "--help"):
            print(__doc__)
            return
        cli.fail(f"command {argv[0] if argv else ''!r} is unknown; allowed are {', '.join(COMMANDS)}")
    COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
