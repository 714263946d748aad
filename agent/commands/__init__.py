"""The commands: one module each, which wires rooms together and prints. `run` returns the exit code."""
