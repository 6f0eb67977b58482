"""One training, one evaluation, one measurement, without a sweep: one file a command, each with run(options)."""
