"""The door: the only room that knows gRPC and the wire contract."""
