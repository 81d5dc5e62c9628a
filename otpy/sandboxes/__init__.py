"""Sandboxes: where the code that a model has written is run, which may do no harm."""
