"""The peer: the same erasure written by hand for these tables, set-based, in one transaction.

As somebody would who knows the tables and PostgreSQL well: the people in a temporary table with statistics, children
before parents, each row changed once, and no row looked up that a join finds. It answers nothing; the connector counts
per person what it deleted, masked and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import psycopg

PEOPLE: Final = """
    CREATE TEMPORARY TABLE people ON COMMIT DROP AS
    SELECT u.id, u.email, EXISTS (SELECT FROM orders o WHERE o.user_id = u.id AND o.placed > %(cutoff)s) AS stays
    FROM users u WHERE lower(u.email) = ANY (%(emails)s)
"""
STATEMENTS: Final = (
    "ANALYZE people",
    "DELETE FROM shipments s USING people p, orders o WHERE o.user_id = p.id AND s.order_id = o.id",
    """
    DELETE FROM order_items i USING people p, orders o
    WHERE o.user_id = p.id AND o.placed <= %(cutoff)s AND i.order_id = o.id
    """,
    "DELETE FROM orders o USING people p WHERE o.user_id = p.id AND o.placed <= %(cutoff)s",
    "UPDATE orders o SET ship_to = NULL FROM people p WHERE o.user_id = p.id AND o.ship_to IS NOT NULL",
    "DELETE FROM sessions s USING people p, devices d WHERE d.user_id = p.id AND s.device_id = d.id",
    "DELETE FROM devices d USING people p WHERE d.user_id = p.id",
    "UPDATE posts r SET parent_id = NULL FROM people p, posts o WHERE o.user_id = p.id AND r.parent_id = o.id",
    "DELETE FROM posts o USING people p WHERE o.user_id = p.id",
    "UPDATE comments c SET user_id = NULL, body = 'masked' FROM people p WHERE c.user_id = p.id",
    """
    UPDATE messages m SET body = NULL, sender_id = CASE WHEN p.stays THEN m.sender_id END,
        recipient_id = CASE WHEN m.recipient_id IN (SELECT id FROM people WHERE NOT stays) THEN NULL
            ELSE m.recipient_id END
    FROM people p WHERE m.sender_id = p.id
    """,
    """
    UPDATE messages m SET body = NULL, recipient_id = CASE WHEN p.stays THEN m.recipient_id END
    FROM people p WHERE m.recipient_id = p.id AND (m.body IS NOT NULL OR NOT p.stays)
    """,
    "DELETE FROM addresses a USING people p WHERE a.user_id = p.id",
    "DELETE FROM consents c USING people p WHERE c.user_id = p.id",
    "DELETE FROM newsletter n USING people p WHERE lower(n.email) = lower(p.email)",
    """
    UPDATE users u SET email = 'random:' || gen_random_uuid(), name = NULL, phone = NULL
    FROM people p WHERE u.id = p.id AND p.stays
    """,
    "DELETE FROM users u USING people p WHERE u.id = p.id AND NOT p.stays",
)


def erase(connection: psycopg.Connection, emails: Sequence[str], cutoff: date) -> None:
    """Erase these people; the connection commits each transaction block by itself."""
    values = {"emails": list(emails), "cutoff": cutoff}
    with connection.transaction():
        connection.execute(PEOPLE, values)
        for statement in STATEMENTS:
            connection.execute(statement, values if "%(" in statement else None)
