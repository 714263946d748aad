"""How good a model is: labelled images inspected, and what came out as figures, files and pictures."""
