"""Text → tokens: readers, tokenizers, corpus curation and Megatron's indexed datasets. Knows nothing of torch."""
