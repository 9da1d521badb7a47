"""The store: rows where people filter and sort, columnar blocks where machines read. SQLite and PostgreSQL alike."""
