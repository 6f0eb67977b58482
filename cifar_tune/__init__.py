"""cifar_tune: the fastest model and inference variant at the accuracy you need, with evidence."""

__version__ = "0.1.0"
