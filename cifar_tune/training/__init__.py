"""Training and evaluation; knows no Ray."""
