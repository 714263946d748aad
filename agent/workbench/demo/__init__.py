"""The demo: from good pictures to answers over gRPC, by the very commands a user would type."""
