"""A client of the paper broker that is not ours: urllib, and replies as they are."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from simulator import TOKEN, Simulator

ACCOUNT = "310000123456"
PASSWORD = "canary-password"


class Dealer:
    """One account, logged in unless told otherwise. Every call has a timeout."""

    def __init__(
        self, sim: Simulator, account: str = ACCOUNT, *, proxy: bool = False, login: bool = True, timeout: float = 20.0
    ) -> None:
        self.base = "http://1.2.3.4:5678" if proxy else sim.trade
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": sim.http} if proxy else {}))
        self.account = account
        self.ticket = ""
        if login:
            self.login()

    def raw(self, call: str, /, **values: str) -> bytes:
        """The body of a reply."""
        query = urlencode({"token": TOKEN, **values})
        with self._opener.open(f"{self.base}/{call}?&{query}&src=pip", timeout=self._timeout) as reply:
            return bytes(reply.read())

    def ask(self, call: str, /, **values: str) -> dict[str, Any]:
        """A reply, with the ticket in the request."""
        return dict(json.loads(self.raw(call, ticket=self.ticket, **values)))

    def login(self) -> dict[str, Any]:
        reply = dict(json.loads(self.raw("login", acc=self.account, **{"pass": PASSWORD})))
        self.ticket = reply.get("ticket", self.ticket)
        return reply

    def buy(self, code: str, price: str, volume: int) -> dict[str, Any]:
        return self.ask("buy", code=code, name="名称", price=price, volume=str(volume))

    def sell(self, code: str, price: str, volume: int) -> dict[str, Any]:
        return self.ask("sale", code=code, name="名称", price=price, volume=str(volume))

    def cancel(self, order_id: str) -> dict[str, Any]:
        return self.ask("cancel", order_id=order_id)

    def orders(self) -> dict[str, dict[str, str]]:
        """By id."""
        return {each["order_id"]: each for each in self.ask("check_order")["list"]}

    def holdings(self) -> dict[str, dict[str, str]]:
        """By code."""
        return {each["code"]: each for each in self.ask("check_hold")["hold_list"]}

    def wait(self, order_id: str, condition: Callable[[dict[str, str]], bool], timeout: float = 30.0) -> dict[str, str]:
        """The first state of an order for which a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition(order := self.orders()[order_id]):
            assert time.monotonic() < deadline, order
            time.sleep(0.05)
        return order
