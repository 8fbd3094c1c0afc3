"""The store: PostgreSQL, the truth. Tables, one module per aggregate, read-only queries, migrations."""
