"""What must not go wrong, tried on purpose: each row injects one kind of fault and counts how often it was survived.

`make test` runs every row in its short form, `make faults MINUTES=N` and `make soak MINUTES=N` for as long as they are
told.
"""
