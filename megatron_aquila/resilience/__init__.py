"""What keeps a run alive and honest: signals, watchdogs, the policy on anomalies, the ledger of samples."""
