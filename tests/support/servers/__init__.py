"""Private PostgreSQL, RabbitMQ and MariaDB servers for tests, on free ports of loopback, never left behind."""
