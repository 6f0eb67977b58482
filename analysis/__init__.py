"""From the Parquet files of a finished run to its answer; needs neither torch nor Ray nor Optuna."""
