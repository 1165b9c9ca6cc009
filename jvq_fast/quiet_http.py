"""HTTP with secrets in its URLs: one try, on connections that no debug level makes talk, without found credentials."""

from collections.abc import Callable
from functools import partial
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

Connect = Callable[..., Any]


class Quiet:
    """Mix it into a connection."""

    # Whoever turns this on for all connections of the process has the request lines, secrets included, on his screen.
    debuglevel = 0

    def set_debuglevel(self, level: int) -> None:
        """Has no effect."""


class _Http(Quiet, HTTPConnection):
    pass


class _Https(Quiet, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    def __init__(self, http: Connect, https: Connect) -> None:
        # Not classes of their own: one made for a session would be left to the garbage collector.
        self._pools = {
            "http": partial(_pool, HTTPConnectionPool, http),
            "https": partial(_pool, HTTPSConnectionPool, https),
        }
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self._equip(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        self._equip(manager)
        return manager

    def _equip(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._pools  # type: ignore[assignment]


def _pool(kind: type[HTTPConnectionPool], connect: Connect, *args: Any, **options: Any) -> HTTPConnectionPool:
    pool = kind(*args, **options)
    pool.ConnectionCls = connect  # type: ignore[assignment]
    return pool


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def quiet_session(*, proxies: bool, http: Connect = _Http, https: Connect = _Https) -> requests.Session:
    """A session for one request. `proxies`: those of the environment are used, but not the credentials of ~/.netrc."""
    session = requests.Session()
    session.trust_env = proxies
    session.auth = _no_credentials
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(http, https))
    return session
