"""The broker's six calls as a plain client sees them, with and without faults; the market does not feel them."""

import http.client
import itertools
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from dealer import ACCOUNT, PASSWORD, Dealer
from simulator import TOKEN, Peer, Simulator

NUMBERS = itertools.count(1000)
CALLS = ("login", "check_hold", "check_order", "buy", "sale", "cancel")


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with Simulator("--seed", "11") as simulator:
        yield simulator


@pytest.fixture
def sim(shared: Simulator) -> Iterator[Simulator]:
    """One simulator for all; each test ends without a fault, without an error, and with books that are right."""
    yield shared
    shared.clear()
    assert shared.errors() == ""
    assert shared.broker()["wrong"] == []


@pytest.fixture
def dealer(sim: Simulator) -> Dealer:
    """An account of which no other test knows."""
    return Dealer(sim, f"31000000{next(NUMBERS):04d}")


def allocate(sim: Simulator, kind: str = "trade") -> dict[str, Any]:
    return dict(json.loads(sim.request(f"/query/server?market=ab&type={kind}&token={TOKEN}")))


def request(target: str, address: str, *, method: str = "GET", path: str = "") -> http.client.HTTPResponse:
    """A request as it stands, wherever it is sent."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
    connection.request(method, target)
    return connection.getresponse()


# Where it answers


def test_allocation_names_the_broker_and_the_market(sim: Simulator) -> None:
    assert allocate(sim) == {"code": "0", "server": sim.trade}
    assert allocate(sim, "websocket") == {"code": "0", "server": sim.ws}
    assert sim.stats()["trade"] == sim.trade


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--no-allocation-scheme"], "{host}"),
        (["--allocation-slash"], "http://{host}/"),
        (["--allocation-path", "/a/b", "--allocation-slash"], "http://{host}/a/b/"),
    ],
)
def test_forms_of_the_address(options: list[str], address: str) -> None:
    with Simulator(*options) as sim:
        server = allocate(sim)["server"]
        assert server == address.format(host=sim.trade.removeprefix("http://"))
        dealer = Dealer(sim, login=False)
        dealer.base = server if "://" in server else f"http://{server}"
        assert dealer.login()["code"] == "0"


def test_a_port_of_ones_choice() -> None:
    with Simulator() as free:
        port = free.trade.rpartition(":")[2]
    with Simulator("--trade-port", port) as sim:
        assert sim.trade.endswith(f":{port}")
        with pytest.raises(AssertionError, match=f"--trade-port {port} is taken"):
            Simulator("--trade-port", port)


def test_it_answers_at_the_http_port_as_a_proxy_and_only_so(sim: Simulator) -> None:
    dealer = Dealer(sim, proxy=True)
    assert len(dealer.holdings()) == 8
    assert request("/login?token=x", sim.http).status == 404


@pytest.mark.parametrize(
    ("target", "method", "status"), [("/login", "POST", 405), ("/", "GET", 404), ("/stats", "GET", 404)]
)
def test_what_is_no_call_is_refused_with_a_status(sim: Simulator, target: str, method: str, status: int) -> None:
    assert request(target, sim.trade, method=method).status == status


# Login and tickets


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({}, True), ({"acc": "999999999999"}, True), ({"pass": "密码"}, True), ({"nonsense": "1"}, True),
        ({"acc": "31000012345"}, False), ({"acc": "31000012345x"}, False), ({"pass": ""}, False),
        ({"token": "short"}, False), ({"token": ""}, False),
    ],
)  # fmt: skip
def test_any_account_of_twelve_digits_logs_in(sim: Simulator, values: dict[str, str], good: bool) -> None:
    reply = json.loads(Dealer(sim, login=False).raw("login", **{"acc": ACCOUNT, "pass": PASSWORD, **values}))
    assert (reply["code"] == "0") is good
    assert ("ticket" in reply) is good
    if good:
        assert set(reply) == {"code", "message", "ticket", "expire", "ctp_acc", "login_stamp"}
        assert reply["expire"] == "9000"
        assert abs(int(reply["login_stamp"]) - time.time()) < 60
    else:
        assert reply["message"]


@pytest.mark.parametrize("call", CALLS[1:])
def test_a_wrong_ticket_is_refused_whatever_is_asked(dealer: Dealer, call: str) -> None:
    query = {"code": "600519", "name": "", "price": "1", "volume": "100", "order_id": "1"}
    for values in ({"ticket": "0" * 32}, {"ticket": ""}, {"ticket": dealer.ticket, "token": "a" * 32}):
        reply = json.loads(dealer.raw(call, **query, **values))
        assert reply["code"] == "-1"
        assert "ticket" in reply["message"]
        assert not reply.get("order_id")


def test_tickets_expire() -> None:
    with Simulator("--ticket-seconds", "1") as sim:
        dealer = Dealer(sim, login=False)
        assert dealer.login()["expire"] == "1"
        assert dealer.ask("check_hold")["code"] == "0"
        time.sleep(1.1)
        assert dealer.ask("check_hold")["code"] == "-1"
        dealer.login()
        assert dealer.ask("check_hold")["code"] == "0"


# Orders in a running market


def test_an_account_begins_the_same_for_the_same_seed(sim: Simulator) -> None:
    with Simulator("--seed", "11", "--hold") as same, Simulator("--seed", "12", "--hold") as other:
        hold = [Dealer(each, "310000000077").ask("check_hold") for each in (same, other)]
        assert Dealer(same, "310000000077").ask("check_hold") == hold[0]
        assert hold[0]["hold_list"] != hold[1]["hold_list"]
        assert len(hold[0]["hold_list"]) == 8


def test_orders_are_accepted_filled_listed_and_cancelled(sim: Simulator, dealer: Dealer) -> None:
    cash = float(dealer.ask("check_hold")["usable"])
    bought = dealer.buy("600519", "1900.00", 100)
    order = dealer.orders()[bought["order_id"]]
    assert (order["status"], order["deal_volume"], order["type"]) == ("已成", "100", "证券买入")
    left = float(dealer.ask("check_hold")["usable"])
    assert left == pytest.approx(cash - 100 * float(order["deal_price"]), abs=0.2)
    held = dealer.holdings()["600519"]
    assert int(held["usable_vol"]) == int(held["hold_vol"]) - 100
    low = dealer.buy("600519", "1700.00", 100)["order_id"]
    assert dealer.orders()[low]["status"] == "已报"
    assert float(dealer.ask("check_hold")["usable"]) == pytest.approx(left - 170_000)
    assert dealer.cancel(low)["code"] == "0"
    assert dealer.orders()[low]["status"] == "已撤"
    assert dealer.cancel(low)["code"] == "-112"
    assert float(dealer.ask("check_hold")["usable"]) == left


def test_what_is_sold_out_stays_listed(dealer: Dealer) -> None:
    volume = int(dealer.holdings()["113050"]["hold_vol"])
    sold = dealer.sell("113050", "100.000", volume)["order_id"]
    dealer.wait(sold, lambda order: order["status"] == "已成")
    held = dealer.holdings()["113050"]
    assert (held["hold_vol"], held["usable_vol"]) == ("0", "0")
    assert float(held["hold_earn"]) != 0


def test_an_order_is_followed_by_the_market_though_nobody_subscribes() -> None:
    with Simulator("--speed", "100") as sim:
        dealer = Dealer(sim)
        price = str(sim_price(sim, "000001"))
        order = dealer.buy("000001", price, 100)["order_id"]
        dealer.wait(order, lambda order: order["status"] == "已成")
        assert not any(each["open"] for each in sim.stats()["connections"])
        assert sim.broker()["accounts"][0]["orders"][0]["fills"][0]["how"] in ("trade", "level")


def sim_price(sim: Simulator, code: str) -> str:
    """The best bid of a market that is looked at for a moment."""
    with Peer(sim.url()) as peer:
        peer.send(f"all=lv1_{code}")
        peer.until(lambda peer: bool(peer.rows("lv1")))
        return peer.rows("lv1")[-1][7]


@pytest.mark.parametrize("speed", ["max", "5000"])
def test_at_any_speed_an_order_ends_with_its_day_at_the_latest(speed: str) -> None:
    with Simulator("--speed", speed, "--from", "14:50", "--order-days", "2") as sim:
        dealer = Dealer(sim)
        order = dealer.buy("601398", "6.30", 100)["order_id"]
        ended = dealer.wait(order, lambda order: order["status"] not in ("已报", "部成"))
        assert ended["status"] == "已撤"
        assert sim.broker()["wrong"] == []
        sim.wait_still()


def test_at_full_speed_orders_alone_move_the_time_and_it_stands_where_they_are_taken() -> None:
    with Simulator("--speed", "max", "--from", "09:15", "--order-days", "9") as sim:
        dealer = Dealer(sim)
        times = []
        for price in ("13.75", "13.75", "11.30", "13.75"):  # the call, the morning, to the close, the next morning
            if price == "11.30":
                sim.fault("day_change", at="14:55")
            order = dealer.buy("000001", price, 100)["order_id"]
            assert order
            times.append(dealer.wait(order, lambda order: order["status"] in ("已成", "已撤"), timeout=60))
        assert [each["time"][:4] for each in times] == ["0915", "0930", "1455", "0915"]
        assert [each["status"] for each in times] == ["已成", "已成", "已撤", "已成"]
        assert times[3]["day"] > times[2]["day"]


def test_in_a_call_auction_it_is_filled_at_the_price_of_the_match() -> None:
    with Simulator("--from", "09:15", "--speed", "200", "--order-days", "2") as sim, Peer(sim.url()) as peer:
        dealer = Dealer(sim)
        order = dealer.buy("000001", "13.70", 100)["order_id"]
        assert dealer.orders()[order]["status"] == "已报"
        peer.send("all=lv2_000001")
        filled = dealer.wait(order, lambda order: order["status"] == "已成")
        peer.until(lambda peer: bool(peer.rows("lv2")))
        time_, _, price, _ = peer.rows("lv2")[0]
        assert time_.startswith("09:25:00")
        assert float(filled["deal_price"]) == float(price) < 13.70
        assert sim.broker()["accounts"][0]["orders"][0]["fills"][0]["how"] == "auction"


def test_a_new_day_makes_what_was_bought_usable_and_ends_what_rests() -> None:
    with Simulator("--order-days", "2") as sim:
        dealer = Dealer(sim)
        bought = dealer.buy("600519", "1900.00", 100)["order_id"]
        resting = dealer.buy("600519", "1700.00", 100)["order_id"]
        held = dealer.holdings()["600519"]
        assert int(held["usable_vol"]) == int(held["hold_vol"]) - 100
        sim.fault("day_change")
        held = dealer.holdings()["600519"]
        assert held["usable_vol"] == held["hold_vol"]
        orders = dealer.orders()
        assert (orders[bought]["status"], orders[resting]["status"]) == ("已成", "已撤")
        assert sim.broker()["wrong"] == []


def test_the_market_does_not_feel_the_orders() -> None:
    def run(orders: bool) -> list[Any]:
        with Simulator("--seed", "3", "--hold", "--speed", "20") as sim, Peer(sim.url()) as peer:
            peer.send("all=lv1_600519,lv2_600519,lv10_600519")
            peer.text()
            if orders:
                dealer = Dealer(sim)
                for price in ("1900.00", "1845.00", "1840.00"):
                    assert dealer.buy("600519", price, 100)["code"] == "0"
                assert dealer.sell("600519", "1700.00", 100)["code"] == "0"
            sim.go()
            peer.until(lambda peer: peer.count() > 3000)
            return [peer.rows("lv2")[:2000], peer.rows("lv1")[:10], peer.rows("lv10")[:10]]

    assert run(True) == run(False)


def test_it_works_with_a_replay(tmp_path: Path) -> None:
    quotes = "date,code,time,pre_close,price,amount,volume," + ",".join(
        f"{side}{level}{what}" for side in "bs" for level in range(1, 6) for what in ("", "p")
    )
    bids = "500,99.98,200,99.97,200,99.96,200,99.95,200,99.94"
    asks = "300,100.00,200,100.01,200,100.02,200,100.03,200,100.04"
    book = tmp_path / "quotes.csv"
    book.write_text(
        f"{quotes}\n2023-02-01,600519,10:00:00,100.00,100.00,0,0,{bids},{asks}\n"
        f"2023-02-01,600519,10:00:03,100.00,100.00,0,0,{bids},{asks}\n", "utf-8"
    )  # fmt: skip
    trades = tmp_path / "trades.csv"
    trades.write_text(
        "date,code,time,trade_id,price,qty,recv_time\n"
        "2023-02-01,600519,10:00:04.000,1,99.98,550,10:00:04.000\n"
        "2023-02-01,600519,10:00:05.000,2,99.97,100,10:00:05.000\n", "utf-8"
    )  # fmt: skip
    options = ("--replay", str(book), str(trades), "--hold", "--speed", "10", "--from", "09:59:55")
    with Simulator(*options) as sim:
        dealer = Dealer(sim)
        assert dealer.buy("600519", "99.985", 100)["code"] == "-105"
        taking = dealer.buy("600519", "100.00", 200)["order_id"]
        waiting = dealer.buy("600519", "99.98", 200)["order_id"]
        again = dealer.buy("600519", "100.00", 200)["order_id"]
        sim.go()
        sim.wait(lambda stats: stats["finished"])
        orders = {each["order_id"]: each for each in sim.broker()["accounts"][0]["orders"]}
        dealt = {order: [(f["price"], f["volume"]) for f in orders[order]["fills"]] for order in orders}
        assert dealt[taking] == [("100.000", 200)]
        assert dealt[again] == [("100.000", 100), ("100.000", 100)]
        assert dealt[waiting] == [("99.980", 100)]
        assert sim.broker()["wrong"] == []


# What tests ask it


def test_requests_are_listed_with_what_became_of_them(sim: Simulator, dealer: Dealer) -> None:
    before = sim.broker()
    good = dealer.buy("600519", "1700.00", 100)["order_id"]
    dealer.buy("600519", "1700.00", 10)
    dealer.cancel(good)
    dealer.raw("sale", ticket="wrong", code="600519", price="1900.00", volume="100")
    dealer.orders()
    after = sim.broker()
    requests = after["requests"][len(before["requests"]) :]
    assert [(each["call"], each["result"], each["accepted"]) for each in requests] == [
        ("buy", "0", good), ("buy", "-107", ""), ("cancel", "0", ""), ("sale", "-1", ""),
    ]  # fmt: skip
    assert [each["account"] for each in requests] == [requests[0]["account"]] * 3 + [0]
    assert (requests[0]["code"], requests[0]["price"], requests[0]["volume"]) == ("600519", "1700.00", "100")
    assert requests[2]["order_id"] == good
    counted = {call: after["received"].get(call, 0) - before["received"].get(call, 0) for call in CALLS}
    assert counted == {"login": 0, "check_hold": 0, "check_order": 1, "buy": 2, "sale": 1, "cancel": 1}


def test_it_tells_of_one_account_alone_and_keeps_secrets(sim: Simulator, dealer: Dealer) -> None:
    other = Dealer(sim, "310000009999")
    other.buy("600519", "1700.00", 100)
    alone = sim.broker("310000009999")
    assert [each["account"] for each in alone["accounts"]] == ["********9999"]
    assert {each["account"] for each in alone["requests"]} == {alone["accounts"][0]["index"]}
    said = json.dumps([sim.broker(), sim.stats(), sim.faults()]) + sim.errors()
    for secret in (dealer.account, "310000009999", PASSWORD, TOKEN, dealer.ticket, other.ticket):
        assert secret not in said


# Faults


class LostError(Exception):
    """No reply, and how it was lost."""


def attempt(dealer: Dealer, call: str = "buy", **values: str) -> bytes:
    """A request whose reply may be lost: by a socket, so that nothing is done twice."""
    query = {"code": "600519", "name": "", "price": "1700.00", "volume": "100", "acc": ACCOUNT, "pass": "x", **values}
    url = urlsplit(dealer.base)
    target = f"/{call}?&{urlencode({'token': TOKEN, 'ticket': dealer.ticket, **query})}"
    with socket.create_connection((str(url.hostname), url.port), timeout=1.5) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        try:
            while more := client.recv(65536):
                data += more
        except TimeoutError:
            raise LostError("hang") from None
        except ConnectionResetError:
            raise LostError("reset") from None
    if not data:
        raise LostError("close")
    head, _, body = data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    if not head.startswith(b"HTTP/1.1 200 "):
        raise LostError(head.split()[1].decode())
    return body


def count(sim: Simulator) -> int:
    """Orders that were accepted."""
    return sum(len(account["orders"]) for account in sim.broker()["accounts"])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "parameters", "how"),
    [
        ("trade_reply_lost", {}, "close"), ("trade_reply_lost", {"how": "hang"}, "hang"), ("trade_reset", {}, "reset"),
        ("trade_status", {"call": "order"}, "502"), ("trade_status", {"call": "buy", "status": 404}, "404"),
    ],
)  # fmt: skip
def test_replies_that_do_not_come(
    sim: Simulator, dealer: Dealer, kind: str, parameters: dict[str, Any], how: str, when: str
) -> None:
    before = count(sim)
    sim.fault(kind, when=when, **parameters)
    with pytest.raises(LostError, match=how):
        attempt(dealer)
    assert count(sim) == before + (when == "after")
    note = sim.broker()["requests"][-1]
    assert (note["faults"], note["result"], bool(note["accepted"])) == (
        [kind], "0" if when == "after" else "", when == "after",
    )  # fmt: skip
    assert json.loads(attempt(dealer))["code"] == "0"


@pytest.mark.parametrize("when", ["before", "after"])
def test_html_instead_of_json(sim: Simulator, dealer: Dealer, when: str) -> None:
    before = count(sim)
    sim.fault("trade_html", call="buy", when=when)
    assert attempt(dealer) == b"<html>bad gateway</html>"
    assert count(sim) == before + (when == "after")


@pytest.mark.parametrize("when", ["before", "after"])
def test_delays(sim: Simulator, dealer: Dealer, when: str) -> None:
    before = count(sim)
    sim.fault("trade_delay", call="sale", delay=2.0, when=when)
    with pytest.raises(LostError, match="hang"):
        attempt(dealer, "sale", price="1900.00")
    accepted = count(sim) - before
    assert accepted == (when == "after")
    time.sleep(1.0)
    assert count(sim) == before + 1  # though the client has gone
    for order, each in dealer.orders().items():
        if each["type"] == "证券卖出" and each["status"] == "已报":
            dealer.cancel(order)


def test_slow_logins(sim: Simulator, dealer: Dealer) -> None:
    sim.fault("trade_slow_login", delay=0.7)
    began = time.monotonic()
    dealer.orders()
    assert time.monotonic() - began < 0.5
    assert dealer.login()["code"] == "0"
    assert time.monotonic() - began > 0.7


def test_replies_that_say_something_else(sim: Simulator, dealer: Dealer) -> None:
    before = count(sim)
    sim.fault("trade_error_after")
    assert json.loads(attempt(dealer)) == {"code": "-1", "message": "系统繁忙"}
    assert count(sim) == before + 1
    sim.fault("trade_reject", code="-9", message="废单")
    assert json.loads(attempt(dealer)) == {"code": "-9", "message": "废单", "order_id": ""}
    assert count(sim) == before + 1
    for accepted in (True, False):
        sim.fault("trade_empty_id", accepted=accepted)
        reply = json.loads(attempt(dealer))
        assert (reply["code"], reply["order_id"]) == ("0", "")
        assert count(sim) == before + 2


def test_an_order_missing_from_the_first_polls(sim: Simulator, dealer: Dealer) -> None:
    sim.fault("trade_missing", polls=2)
    sim.fault("trade_reply_lost")
    with pytest.raises(LostError):
        attempt(dealer)
    accepted = sim.broker()["requests"][-1]["accepted"]
    assert [accepted in dealer.orders() for _ in range(4)] == [False, False, True, True]


def test_an_expired_ticket(sim: Simulator, dealer: Dealer) -> None:
    sim.fault("trade_ticket", call="any")
    assert json.loads(attempt(dealer, "login"))["code"] == "0"
    for _ in range(2):
        assert dealer.ask("check_hold")["code"] == "-1"
    dealer.login()
    assert dealer.ask("check_hold")["code"] == "0"


def test_statuses_that_nobody_knows(sim: Simulator, dealer: Dealer) -> None:
    ids = [dealer.buy("600519", "1700.00", 100)["order_id"] for _ in range(2)]
    sim.fault("trade_order_status")
    assert {each["status"] for each in dealer.orders().values()} == {"废单"}
    sim.fault("trade_order_status", text="已报待撤", which="newest")
    orders = dealer.orders()
    assert [orders[each]["status"] for each in ids] == ["已报", "已报待撤"]


def test_json_that_ends_early_numbers_for_texts_and_missing_fields(sim: Simulator, dealer: Dealer) -> None:
    dealer.buy("000001", "12.00", 100)
    whole = dealer.raw("check_hold", ticket=dealer.ticket)
    sim.fault("trade_truncated")
    with pytest.raises(ValueError):
        dealer.ask("check_hold")
    sim.fault("trade_truncated", cut=5)
    assert whole.startswith(dealer.raw("check_hold", ticket=dealer.ticket)[:20])
    sim.fault("trade_numbers")
    reply = dealer.ask("check_order")
    entry = next(each for each in reply["list"] if each["code"] == "000001")
    assert reply["code"] == 0
    assert (entry["order_price"], entry["order_volume"], entry["deal_volume"]) == (12.0, 100, 0)
    assert isinstance(entry["order_id"], int)
    sim.fault("trade_numbers", call="login")
    reply = dealer.login()
    assert (reply["code"], reply["expire"]) == (0, 9000)
    sim.fault("trade_fields", call="check_order", field="deal_volume")
    assert all("deal_volume" not in each and "status" in each for each in dealer.ask("check_order")["list"])
    sim.fault("trade_fields", call="buy")
    assert len(json.loads(attempt(dealer))) == 2


@pytest.mark.parametrize("call", CALLS)
def test_a_fault_hits_the_calls_that_it_is_for(sim: Simulator, dealer: Dealer, call: str) -> None:
    sim.fault("trade_status", call=call)
    for each in CALLS:
        if each != call:
            assert attempt(dealer, each, order_id="1")
    with pytest.raises(LostError, match="502"):
        attempt(dealer, call, order_id="1")
    assert not any(each["active"] for each in sim.faults()["faults"])


def test_faults_by_switch_and_by_seed() -> None:
    def run(seed: str) -> list[str]:
        with Simulator("--seed", seed, "--fault", "trade_status:call=check_order,probability=0.5,count=0") as sim:
            dealer, said = Dealer(sim), []
            for _ in range(12):
                try:
                    dealer.orders()
                    said.append("")
                except urllib.error.HTTPError as error:
                    error.close()
                    said.append(str(error.code))
            return said

    first = run("1")
    assert set(first) == {"", "502"}
    assert run("1") == first
    assert run("2") != first


def test_nobody_can_connect_to_a_broker_that_is_down(sim: Simulator, dealer: Dealer) -> None:
    before = sim.broker()
    number = sim.fault("trade_down")
    with pytest.raises(urllib.error.URLError, match="refused"):
        dealer.buy("600519", "1700.00", 100)
    after = sim.broker()
    assert after["requests"] == before["requests"]
    sim.clear(number)
    assert dealer.buy("600519", "1700.00", 100)["code"] == "0"
    with Simulator("--fault", "trade_down:seconds=1") as other:
        with pytest.raises(urllib.error.URLError, match="refused"):
            Dealer(other)
        time.sleep(1.2)
        assert Dealer(other).holdings()


def test_faults_of_allocation_are_for_the_broker_too(sim: Simulator) -> None:
    sim.fault("allocation_dead")
    server = allocate(sim)["server"]
    assert server.startswith("http://127.0.0.1:")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])), timeout=5)
    sim.fault("allocation_unknown_host")
    assert allocate(sim)["server"] == "http://unknown-host.invalid:80"
