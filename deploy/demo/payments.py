#!/usr/bin/env python
"""Serves Stripe's API for the demo shop: localstripe, without its state file and its access log.

Run it with the Python that has localstripe: it is under the GPL, so it is a program beside Habeas and never part of it.
"""

import sys

from aiohttp import web
from localstripe import resources, server

# As shipped it writes all objects to a fixed file at every change: slow, and impossible on a read-only file system.
resources.Store.dump_to_disk = lambda _self: None

if __name__ == "__main__":
    # No access log: it would name customers' addresses.
    web.run_app(server.app, host=sys.argv[1], port=int(sys.argv[2]), access_log=None, print=None)
