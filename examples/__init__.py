"""Programs to copy from. They are installed with the package for `jvq-fast demo --strategy`."""
