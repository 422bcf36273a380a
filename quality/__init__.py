"""Quality, measured: datasets, metrics, failures and reports of `attest eval`. Knows `rag`, and nothing of `ingest`."""
