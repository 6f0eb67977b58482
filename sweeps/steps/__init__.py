"""What the sweeps share: the steps of a run."""
