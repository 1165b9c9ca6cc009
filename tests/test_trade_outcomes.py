"""What is told of an order or a cancel, and who waits for whom."""

import datetime as dt
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import jvq_fast as jvq
from jvq_fast.trade import wire
from jvq_fast.trade.gate import Request
from trade_script import (
    ACCOUNT,
    OPEN,
    PASSWORD,
    WAIT,
    WIDE,
    Broker,
    Clock,
    Market,
    few_rounds,
    hang,
    holding,
    paper,
    reset,
    respond,
    say,
    wait,
)
from ws_script import TOKEN, Script

__all__ = ["few_rounds"]
SLOW = jvq.Polling(fast=60, slow=60)
Told = list[tuple[int, str]]


def listening(client: jvq.TradeClient) -> Told:
    told: Told = []
    client.on_intent(lambda intent: told.append((intent.number, intent.outcome.value)))
    return told


def test_what_becomes_of_an_intent_is_told(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, trusted_rejections=["no money"]) as client:
        told = listening(client)
        order = client.buy("600519", "10.00", 100)
        broker.answers["buy"] = say(code="-1", message="no money")
        with pytest.raises(jvq.OrderRejected):
            client.buy("600519", "10.01", 100)
        broker.answers["buy"] = say(code="-1", message="no idea")
        with pytest.raises(jvq.OrderRejected):
            client.buy("600519", "10.02", 100)
        client.cancel(order)
        wait(lambda: len(told) == 5)
        assert told == [(1, "accepted"), (2, "rejected"), (3, "unknown"), (3, "rejected"), (4, "accepted")]


def test_what_was_unknown_is_told_when_a_list_shows_it_or_a_human_says_it(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        told = listening(client)
        broker.answers["buy"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("600519", "10.00", 100)
        wait(lambda: told == [(1, "unknown")])
        broker.add("buy", broker.calls("buy")[0])
        assert client.order(caught.value.intent) is None or told[-1] == (1, "accepted")
        wait(lambda: told == [(1, "unknown"), (1, "accepted")])
        assert client.order(caught.value.intent) is not None
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("000001", "10.00", 100)
        client.resolve(caught.value.intent, "rejected")
        wait(lambda: told[2:] == [(2, "unknown"), (2, "rejected")])
        with pytest.raises(jvq.OrderRejected):
            client.wait(caught.value.intent, WAIT)


def test_what_was_not_sent_and_what_is_dry_is_told(tmp_path: Path) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            client.orders()
            told = listening(client)
            client._session.call, real = (  # type: ignore[method-assign]
                lambda *_, **__: wire.NotSent("refused"),
                client._session.call,
            )
            with pytest.raises(jvq.OrderNotSent):
                client.buy("600519", "10.00", 100)
            client._session.call = real  # type: ignore[method-assign]
            wait(lambda: told == [(1, "not sent")])
        with jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, market=Market(), clock=Clock(), limits=WIDE) as client:
            told = listening(client)
            client.buy("600519", "10.00", 100)
            wait(lambda: told == [(1, "not sent")])


def test_a_restart_tells_nothing_anew(tmp_path: Path) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            client.buy("600519", "10.00", 100)
            broker.answers["buy"] = reset
            with pytest.raises(jvq.OrderUnknown):
                client.buy("600519", "10.01", 100)
        broker.add("buy", broker.calls("buy")[1])
        client = paper(broker, tmp_path, limits=WIDE)
        told = listening(client)
        with client:
            wait(lambda: told == [(2, "accepted")])


def test_to_wait_for_a_cancel_is_to_wait_for_its_order(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        order = client.buy("600519", "10.00", 100)
        broker.answers["cancel"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.cancel(order)
        with pytest.raises(jvq.WaitTimeoutError):
            client.wait(caught.value.intent, 0.05)
        broker.rows[0]["status"] = "已撤"
        done = client.wait(caught.value.intent, WAIT)
        assert (done.order_id, done.status) == (order.order_id, jvq.Status.CANCELLED)
        assert client.order(caught.value.intent) == done
        assert client.unknown == ()


def test_a_cancel_that_came_too_late_is_no_rejected_order(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        order = client.buy("600519", "10.00", 100)
        broker.answers["cancel"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.cancel(order)
        broker.rows[0] |= {"status": "已成", "deal_volume": "100", "deal_price": "10.00"}
        with pytest.raises(jvq.OrderRejected, match=r"cancel order .* was rejected") as refused:
            client.wait(caught.value.intent, WAIT)
        assert refused.value.intent.action == "cancel"
        assert client.wait(order, WAIT).status is jvq.Status.FILLED


# --- what a reply means ---


ACCEPTED = [
    say(code="0", message="", order_id="77"), say(code=0, order_id=77), say(code="0", order_id=" 77 ", more=[1]),
]  # fmt: skip
UNKNOWN = [
    reset, lambda peer: None, say(code="0", message="", order_id=""), say(code="0"), say(order_id="77"), say(),
    say(code="0", order_id=None), say(code="-1", message="no", order_id="77"), say(code=None, order_id="77"),
    say(code=True, order_id="77"), say(code="", order_id="77"), respond(b"<html>busy</html>"), respond(b""),
    respond(b'["0","77"]'), respond(b'{"code":"0","order_id":"77"'), respond(b'{"code":"0","order_id":"77"}', 500),
    respond(b'{"code":"0","order_id":"77"}', 502), respond(b'{"code":"-1","message":"no"}', 503),
    respond(b'{"code":"-1","message":"no"}', 404), respond(b"moved", 302, b"Location: http://127.0.0.1:1/buy"),
    respond(b"\xff\xfe\x00"), respond(b'{"code":"0","order_id":"77"}', 201),
]  # fmt: skip


@pytest.mark.parametrize("reply", ACCEPTED)
def test_code_0_and_a_number_mean_that_it_is_accepted(reply: Script, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        client.orders()
        broker.answers["buy"] = reply
        assert client.buy("600519", "10", 100).order_id == "77"
        assert len(broker.calls("check_order")) == 1


@pytest.mark.parametrize("reply", UNKNOWN)
def test_everything_else_means_that_it_is_unknown(reply: Script, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        broker.answers["buy"] = reply
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("600519", "10", 100)
        for _ in range(10):  # however often it is not listed, it never becomes "not sent"
            client.orders()
        assert client.unknown == (client.intents[0],) == (caught.value.intent,)
        with pytest.raises(jvq.RiskError, match="may be at the broker") as refused:
            client.buy("600519", "9.99", 100)
        assert refused.value.limit == "unknown"
        assert len(broker.calls("buy")) == 1
        del broker.answers["buy"]
        client.sell("600519", "10", 100)
        client.buy("000001", "10", 100)


def test_no_is_believed_after_three_lists_without_a_match(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        client.orders()
        broker.answers["buy"] = say(code="-3", message="no money")
        with pytest.raises(jvq.OrderRejected) as caught:
            client.buy("600519", "10", 100)
        assert (caught.value.code, caught.value.message) == ("-3", "no money")
        assert len(broker.calls("check_order")) == 1 + 3
        del broker.answers["buy"]
        client.buy("600519", "10", 100)


@pytest.mark.parametrize("shown_by", [1, 2, 3])
def test_no_is_not_believed_where_a_list_has_the_order_all_the_same(shown_by: int, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        client.orders()
        broker.answers["buy"] = say(code="-3", message="no money")

        def before(call: str, query: dict[str, str]) -> None:
            if call == "check_order" and len(broker.calls("check_order")) == 1 + shown_by:
                broker.add("buy", broker.calls("buy")[0])

        broker.before = before
        order = client.buy("600519", "10", 100)
        assert (order.order_id, order.intent) == ("1334564", 1)
        assert client.intents[0].outcome is jvq.Outcome.ACCEPTED


def test_no_is_unknown_while_the_list_can_not_be_read(tmp_path: Path) -> None:
    with (
        Broker() as broker,
        paper(broker, tmp_path, limits=WIDE, polling=jvq.Polling(fast=0.01, slow=60, retry=60)) as client,
    ):
        client.orders()
        broker.answers |= {"buy": say(code="-3", message="no money"), "check_order": respond(b"", 500)}
        with pytest.raises(jvq.OrderUnknown, match="no money"):
            client.buy("600519", "10", 100)
        assert client.unknown
        del broker.answers["check_order"]
        for _ in range(3):
            client.orders()
        assert client.intents[0].outcome is jvq.Outcome.REJECTED


def test_a_text_that_is_trusted_is_believed_at_once(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, trusted_rejections=["no money"]) as client:
        client.orders()
        broker.answers["buy"] = say(code="-3", message="no money")
        with pytest.raises(jvq.OrderRejected):
            client.buy("600519", "10", 100)
        assert len(broker.calls("check_order")) == 1


def test_what_is_lost_counts_among_the_open_orders_and_in_the_days_value(tmp_path: Path) -> None:
    limits = WIDE.replace(max_open_orders=2, max_daily_value="2500")
    with Broker() as broker, paper(broker, tmp_path, limits=limits, polling=SLOW) as client:
        broker.answers["buy"] = reset
        for code in ("600519", "000001"):
            with pytest.raises(jvq.OrderUnknown):
                client.buy(code, "10", 100)
        with pytest.raises(jvq.RiskError) as caught:
            client.buy("000002", "10", 100)
        assert caught.value.limit in ("max_open_orders", "max_daily_value")
        client.resolve(1, "not sent")
        with pytest.raises(jvq.OrderUnknown):
            client.buy("000002", "10", 100)
        client.resolve(2, "rejected")
        with pytest.raises(jvq.RiskError) as caught:
            client.buy("000004", "20", 100)
        assert (caught.value.limit, caught.value.actual) == ("max_daily_value", 3000)


# --- the queue of what is submitted ---


def test_what_has_to_be_asked_before_a_sale_holds_up_no_purchase(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW, timeout=2.0) as client:
        client.orders()
        release = threading.Event()

        def before(call: str, query: dict[str, str]) -> None:
            if call == "check_hold":
                assert release.wait(WAIT)

        broker.before = before
        sale = client.submit_sell("600519", "10.00", 100)
        wait(lambda: len(broker.calls("check_hold")) == 1)
        bought = [client.submit_buy("600519", f"10.0{n}", 100).result(WAIT).price for n in range(3)]
        assert len(bought) == 3
        assert not sale.done()
        release.set()
        assert sale.result(WAIT).side is jvq.Side.SELL
        # What may be sold is known now, and a sale is entered in its turn.
        assert client.submit_sell("600519", "10.01", 100).result(WAIT).intent == 5


def test_what_is_ready_passes_the_gate_in_its_turn(tmp_path: Path) -> None:
    limits = WIDE.replace(max_open_orders=4)
    broker = Broker()
    broker.held = [holding("600519", 100_000, 100_000)]
    with broker, paper(broker, tmp_path, limits=limits, polling=SLOW) as client:
        client.orders()
        client.submit_sell("600519", "10.05", 100).result(WAIT)
        futures: list[Future[jvq.Order]] = []
        for number in range(10):
            submit = client.submit_sell if number % 2 else client.submit_buy
            futures.append(submit("600519", f"10.1{number}", 100))
        errors = [future.exception(WAIT) for future in futures]
        assert [error is None for error in errors] == [True] * 3 + [False] * 7
        assert [future.result().intent for future in futures[:3]] == [2, 3, 4]


@pytest.mark.parametrize("act", ["login", "buy"])
def test_those_who_wait_for_a_login_share_its_failure(act: str, tmp_path: Path) -> None:
    """A login costs money, and takes 45 s to fail."""
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        release = threading.Event()

        def before(call: str, query: dict[str, str]) -> None:
            assert release.wait(WAIT)

        broker.before, broker.answers["login"] = before, reset
        if act == "buy":
            futures = [client.submit_buy("600519", f"10.0{number}", 100) for number in range(8)]
        else:
            futures = []
            for _ in range(8):
                future: Future[Any] = Future()
                futures.append(future)
                threading.Thread(target=settle, args=(future, client.login), daemon=True).start()
        wait(lambda: len(broker.calls("login")) == 1)
        threading.Event().wait(0.3)
        release.set()
        for future in futures:
            with pytest.raises(jvq.LoginError):
                future.result(WAIT)
        assert len(broker.calls("login")) == 1
        del broker.answers["login"]
        client.buy("600519", "10", 100)
        assert len(broker.calls("login")) == 2


def settle(future: "Future[Any]", act: Callable[[], object]) -> None:
    try:
        future.set_result(act())
    except Exception as error:
        future.set_exception(error)


# --- what a human says ---


def lost(client: jvq.TradeClient, broker: Broker, code: str = "600519") -> jvq.Intent:
    broker.answers["buy"] = reset
    with pytest.raises(jvq.OrderUnknown) as caught:
        client.buy(code, "10", 100)
    del broker.answers["buy"]
    intent = caught.value.intent
    assert isinstance(intent, jvq.Intent)
    return intent


def test_a_human_may_be_wrong_and_say_so(tmp_path: Path) -> None:
    limits = WIDE.replace(max_daily_value="1500", max_open_orders=1)
    with Broker() as broker:
        with paper(broker, tmp_path, limits=limits, polling=SLOW) as client:
            intent = lost(client, broker)
            client.resolve(intent, "accepted", "4242")
            assert (client.unknown, client.intents[0].order_id) == ((), "4242")
            client.resolve(intent, "not sent")
            assert (client.intents[0].outcome, client.intents[0].order_id) == (jvq.Outcome.NOT_SENT, "")
            assert client.order("4242") is None
            client._placing._check_frozen(Request(jvq.Side.BUY, "600519", Decimal(10), 100))
            client.resolve(intent, "rejected")
            client.resolve(intent, "accepted", "77")
        with paper(broker, tmp_path, limits=limits, polling=SLOW) as client:
            assert (client.intents[0].outcome, client.intents[0].order_id) == (jvq.Outcome.ACCEPTED, "77")
            with pytest.raises(jvq.RiskError) as caught:
                client.buy("000001", "10", 100)
            assert caught.value.limit == "max_daily_value"
            client.resolve(1, "not sent")
            client.buy("000001", "10", 100)
            with pytest.raises(ValueError, match="is not unknown: it is accepted as order 1334564"):
                client.resolve(2, "rejected")


def test_what_a_list_has_shown_is_no_matter_of_opinion(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        intent = lost(client, broker)
        number = broker.add("buy", broker.calls("buy")[0])
        client.resolve(intent, "accepted", number)
        client.orders()
        with pytest.raises(ValueError, match=f"as order {number}"):
            client.resolve(intent, "rejected")


def test_an_order_that_a_human_denied_and_a_list_shows_is_told(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        errors: list[str] = []
        client.on_error(lambda error, where: errors.append(str(error)))
        intent = lost(client, broker)
        client.resolve(intent, "rejected")
        number = broker.add("buy", broker.calls("buy")[0])
        client.orders()
        wait(lambda: any(f"is at the broker all the same as order {number}" in error for error in errors))
        assert client.intents[0].outcome is jvq.Outcome.ACCEPTED


def test_an_accepted_order_that_no_list_shows_is_told_once(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        errors: list[str] = []
        client.on_error(lambda error, where: errors.append(str(error)))
        client.resolve(lost(client, broker), "accepted", "4242")
        for _ in range(9):
            client.orders()
        assert errors == []
        for _ in range(9):
            client.orders()
        wait(lambda: len(errors) == 1)
        assert "should be order 4242, and no list has it" in errors[0]


def test_a_number_that_is_another_order_now_is_told(tmp_path: Path) -> None:
    """As of a simulator that was started anew."""
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        errors: list[str] = []
        fills: list[jvq.Fill] = []
        client.on_error(lambda error, where: errors.append(str(error)))
        client.on_fill(fills.append)
        order = client.buy("600519", "10", 100)
        broker.rows[0] |= {"deal_volume": "100", "status": "已成", "deal_price": "10"}
        client.orders()
        wait(lambda: len(fills) == 1)
        broker.rows[0] |= {"code": "000001", "deal_volume": "0", "status": "已报"}
        (shown,) = client.orders()
        assert (shown.code, shown.deal_volume) == ("000001", 0)
        wait(lambda: errors == [f"order {order.order_id}: the broker lists another one under this number now"])
        assert len(fills) == 1


# --- odds and ends ---


def test_a_price_of_numpy_is_refused_with_what_to_pass(tmp_path: Path) -> None:
    import numpy as np

    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        with pytest.raises(TypeError, match=r"the float 3\.988: pass '3\.988' or Decimal\('3\.988'\)"):
            client.buy("600519", np.float64(3.988), 100)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"pass Decimal\('0\.02'\)"):
            WIDE.replace(price_band=np.float64(0.02))
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(client)


def test_another_day_of_the_market_does_not_make_old_orders_new(tmp_path: Path) -> None:
    """A second is one of the wall clock, whatever time it is at the exchange."""
    limits = WIDE.replace(max_per_second=2, max_repeats=1, repeat_window=30.0)
    with Broker() as broker:
        broker.clock.now += dt.timedelta(days=2)  # type: ignore[attr-defined]
        with paper(broker, tmp_path, limits=limits, polling=SLOW) as client:
            client.buy("600519", "10", 100)
            client.buy("600519", "10.01", 100)
        broker.clock.now -= dt.timedelta(days=2)  # type: ignore[attr-defined]
        with paper(broker, tmp_path, limits=limits, polling=SLOW) as client:
            with pytest.raises(jvq.RiskError) as caught:
                client.buy("600519", "10", 100)
            assert caught.value.limit == "max_repeats"
            threading.Event().wait(1.1)
            client.buy("600519", "10.02", 100)


def test_a_number_of_the_brokers_is_a_text(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        broker.answers["buy"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("600519", "10", 100)
        with pytest.raises(TypeError, match="pass '1334564'"):
            client.resolve(caught.value.intent, "accepted", 1334564)  # type: ignore[arg-type]
        assert client.resolve(caught.value.intent, "accepted", "1334564").order_id == "1334564"


def test_a_call_that_was_interrupted_is_on_the_bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        client.orders()
        spent = client.stats()["spent"]

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(wire, "get", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.buy("600519", "10", 100)
        assert client.stats()["spent"] - spent == client._ledger.bill.fees["buy"]  # type: ignore[operator]
        assert [each.outcome for each in client.unknown] == [jvq.Outcome.UNKNOWN]


def test_what_calls_cost_is_told_by_day_and_call(tmp_path: Path) -> None:
    with Broker() as broker:
        for days in (0, 1):
            broker.clock.now += dt.timedelta(days=days)  # type: ignore[attr-defined]
            with paper(broker, tmp_path, limits=WIDE, polling=SLOW, fees={"check_order": Decimal("0.05")}) as client:
                client.buy("600519", "10", 100)
                client.account()
        first, second = OPEN.date(), OPEN.date() + dt.timedelta(days=1)
        nothing = dict.fromkeys(("login", "sale", "cancel"), Decimal(0))
        each = {**nothing, "check_order": Decimal("0.05"), "check_hold": Decimal("0.02"), "buy": Decimal("0.20")}
        assert client.spending() == {first: {**each, "login": Decimal("0.50")}, second: each}
        assert client.stats()["spent"] == sum(each.values())


def test_a_state_folder_below_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(jvq.JournalError, match=r"state.* can't be used: Not a directory"):
        jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, mode="paper", server="127.0.0.1:1")


def test_a_queue_that_hangs_still_lets_cancels_go(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW, timeout=1.0) as client:
        order = client.buy("600519", "10", 100)
        broker.answers |= {"buy": hang, "check_hold": hang}
        pending = [client.submit_buy("600519", "10.01", 100), client.submit_sell("000001", "10.01", 100)]
        wait(lambda: bool(broker.calls("check_hold")))
        assert client.submit_cancel(order).result(WAIT).outcome is jvq.Outcome.ACCEPTED
        for future in pending:
            with pytest.raises(jvq.TradeError):
                future.result(WAIT)
