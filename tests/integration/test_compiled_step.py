"""A training step that a compiler has built."""

import pytest
from small_data import config, small_data
from torch._dynamo.utils import counters

from cifar_tune.training.loop import train


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's own, of importing inductor
def test_compiled_step_trains_as_the_eager_one() -> None:
    graphs = counters["stats"]["unique_graphs"]
    eager, whole = (next(train(config(epochs=1, compile_step=c), small_data())) for c in (False, True))
    assert whole.train_loss == pytest.approx(eager.train_loss, rel=1e-3)
    assert counters["stats"]["unique_graphs"] > graphs
