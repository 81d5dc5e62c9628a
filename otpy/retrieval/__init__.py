"""Retrieval: passages by words and by meaning, in this process."""

from __future__ import annotations

from otpy.retrieval.bm25 import BM25
from otpy.retrieval.embedder import EmbedderProtocol, FunctionEmbedder
from otpy.retrieval.embeddings import Embeddings
from otpy.retrieval.fusion import Hybrid, reciprocal_rank_fusion
from otpy.retrieval.passage import Passage, Retriever, Where
from otpy.retrieval.tokenizer import ENGLISH, Tokenizer

__all__ = [
    "BM25",
    "ENGLISH",
    "EmbedderProtocol",
    "Embeddings",
    "FunctionEmbedder",
    "Hybrid",
    "Passage",
    "Retriever",
    "Tokenizer",
    "Where",
    "reciprocal_rank_fusion",
]
