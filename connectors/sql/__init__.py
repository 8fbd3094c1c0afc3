"""SQL databases: PostgreSQL, MariaDB, MySQL and DuckDB, with Fides dataset files as the data map."""

from connectors.sql.connector import Sql

__all__ = ["Sql"]
