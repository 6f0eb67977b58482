"""One file per sweep; each has run(config) and is a command of its own."""
