"""Generated from protos/edge-agent.proto by `make wire`; nobody edits it."""
