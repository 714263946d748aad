"""Where models run: one process per running model, its handle in the parent, and what passes between the two."""
