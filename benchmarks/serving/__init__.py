"""What serving costs: the agent, end to end, against the same graph in a bare loop. See docs/performance.md."""
