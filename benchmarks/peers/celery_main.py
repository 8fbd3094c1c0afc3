"""Runs ``celery_app``, whose tasks are named for the module that it is for everybody else."""

from benchmarks.peers.celery_app import main

if __name__ == "__main__":
    main()
