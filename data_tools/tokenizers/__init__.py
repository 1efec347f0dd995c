"""Tokenizers of four kinds behind one protocol: byte-level BPE, tokenizer.json, sentencepiece, .tiktoken."""

from data_tools.tokenizers.loader import load_tokenizer
from data_tools.tokenizers.protocol import Tokenizer, TokenizerError

__all__ = ["Tokenizer", "TokenizerError", "load_tokenizer"]
