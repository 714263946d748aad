"""Models from elsewhere: each importer reads one kind of source and makes a draft of it."""
