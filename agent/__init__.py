"""The vision edge agent: visual inspection at the edge, over gRPC on a unix socket."""

__version__ = "1.3.0"
