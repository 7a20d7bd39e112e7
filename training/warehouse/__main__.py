"""`python -m training.warehouse`: writes the DuckDB files anew from BigQuery's. BigQuery's are the source."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
SHARED: Final = ("0_tables.sql", "1_judge_events.sql", "2_auction_log.sql", "3_event_counts.sql")


def for_duckdb(bigquery: str) -> str:
    """The statements of a BigQuery file in DuckDB's dialect; parameters are `$name` instead of `@name`."""
    import sqlglot

    statements = sqlglot.transpile(bigquery, read="bigquery", write="duckdb", pretty=True)
    return ";\n".join(statements) + ";\n"


def main() -> None:
    for name in SHARED:
        (FOLDER / "duckdb" / name).write_text(for_duckdb((FOLDER / "bigquery" / name).read_text()))


if __name__ == "__main__":
    main()
