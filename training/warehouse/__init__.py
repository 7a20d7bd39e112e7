"""SQL that builds the auction log where the events live: written for BigQuery, and the same for DuckDB."""
