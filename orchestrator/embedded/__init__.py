"""A PostgreSQL of our own, from a wheel: nothing to install, durable, shared by every process on the machine.

``EmbeddedPostgres(directory).start()`` builds a cluster in the directory (once), starts its server (unless it runs) and
returns; whoever calls it second attaches to what runs. The server listens on loopback and on a Unix socket, asks for a
random password that lies beside the data, and outlives its starter: killing ``habeas`` never kills the database.

PostgreSQL refuses to run as root. Started by root it therefore runs as ``postgres`` or ``nobody``, and where the path
leads through folders that only root may enter (a checkout in ``/root``) it keeps the one capability to walk through.
"""

from orchestrator.embedded.errors import EmbeddedError
from orchestrator.embedded.pgmq import install_pgmq
from orchestrator.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedError", "EmbeddedPostgres", "install_pgmq"]
