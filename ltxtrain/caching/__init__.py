"""The parts of the caching recipe: the models that encode. ``precompute.py`` is what goes through the clips."""
