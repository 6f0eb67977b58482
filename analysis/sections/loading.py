"""How the run's tables are loaded."""

TEXT = """## Load the data

```python
import pandas as pd

latency = pd.read_parquet("latency.parquet")  # a row per model, variant and stage, with raw samples
front = pd.read_parquet("front.parquet")  # the rows that compete: on_front, front_probability, figure, candidate
front[front.on_front].sort_values("place_ms")[["model", "arm", "variant", "test_accuracy", "place_ms", "figure"]]
```"""
