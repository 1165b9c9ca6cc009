"""A local jvQuant in a process of its own: server allocation, market data, a generated market or a real day.

Run it with ``jvq-fast sim`` or ``python -m jvq_fast.sim``.
"""
