"""Retrieval: passages by words and by meaning, in this process."""
