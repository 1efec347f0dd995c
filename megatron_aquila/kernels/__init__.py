"""Per-token log-probabilities over a vocabulary that is split across tensor-parallel ranks."""
