"""A local jvQuant in a process of its own: allocation, market data, a paper broker, a generated market or a real day.

Run it with ``jvq-fast sim`` or ``python -m jvq_fast.sim``.
"""
