"""What goes into components as it is: scripts that run before anything is installed."""
