"""From what an importer made of a source to a package that proves itself, and to a component."""
