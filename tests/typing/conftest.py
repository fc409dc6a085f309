"""The files here are read by type checkers and not run."""

collect_ignore_glob = ["*.py"]
