"""From camera to verdict: what `camera.py` is made of. The README draws how the parts hang together."""
