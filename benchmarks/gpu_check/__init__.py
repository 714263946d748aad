"""`make gpu-check`: what the agent does on this machine's GPU, shown by doing it."""
