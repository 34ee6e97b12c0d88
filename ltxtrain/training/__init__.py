"""The parts of the training recipe: what it holds, one step of it, validation. ``train.py`` is the loop over them."""
