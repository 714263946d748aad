"""The workbench: makes packages, shows what they do. Runs at a bench, never in the service."""
