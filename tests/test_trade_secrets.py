"""Canaries for token, account, password and ticket, through every path of the trade client that fails."""

import base64
import gc
import http.client
import json
import logging
import pickle
import signal
import socket
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import pytest

import jvq_fast as jvq
from jvq_fast.redact import Secret
from test_secrets import Everything, anatomy
from trade_script import WIDE, Broker, Clock, Market, few_rounds, hang, paper, reset, respond, wait
from ws_script import Peer, Script, ScriptServer

__all__ = ["few_rounds"]

# Only ever globals: the tracebacks that are searched show the locals of the tests, too.
CANARIES = {
    "token": "c0ffee5ca1ab1e0ddba11feedfacef00",
    "account": "998877665544",
    "password": "密码 \"p+w%d' \\x",
    "ticket": '9f+1d/4c=7e 5b"2a',
}


def spellings(secret: str) -> set[str]:
    """How a secret may be written, in lower case."""
    spelled_out = "".join(f"%{byte:02X}" for byte in secret.encode())
    plain = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), spelled_out, repr(secret)[1:-1]}
    plain |= {repr(secret.encode())[2:-1], ascii(secret)[1:-1]}
    plain |= {quote(each, safe="") for each in plain}
    plain |= {json.dumps(each)[1:-1] for each in plain} | {json.dumps(each, ensure_ascii=False)[1:-1] for each in plain}
    plain |= {json.dumps(each)[1:-1] for each in plain} | {"".join(f"\\u{ord(c):04x}" for c in secret)}
    coded = set()
    for lead in range(3):
        # What stands before it shifts it; what is cut off depends on its neighbours.
        text = base64.b64encode(b"." * lead + secret.encode()).decode().rstrip("=")[lead + (lead > 0) : -1]
        coded |= {text, text.replace("+", "-").replace("/", "_")}
    return {each.lower() for each in plain | coded}


SPELLINGS = {name: spellings(secret) for name, secret in CANARIES.items()}


def found_in(texts: list[str], *, but: str = "") -> list[tuple[str, str]]:
    """Secrets and the texts that show them."""
    found = []
    for text in set(texts):
        forms = {text}
        if "%" in text:
            forms |= {unquote(text), unquote_plus(text), unquote_plus(unquote(text))}
        lower = "\n".join(forms).lower()
        found += [
            (name, text) for name, each in SPELLINGS.items() if name != but and any(form in lower for form in each)
        ]
    return found


def echoes() -> bytes:
    """All the secrets as a server may repeat them."""
    found = []
    for secret in CANARIES.values():
        spelled_out = "".join(f"%{byte:02x}" for byte in secret.encode())
        found += [secret, quote(secret), quote_plus(secret), spelled_out, quote(spelled_out), json.dumps(secret)]
    return " ".join(found).encode()


def test_the_search_finds_every_spelling() -> None:
    assert found_in(["nothing", "code=0&name=%E8%B4%B5"]) == []
    for name, secret in CANARIES.items():
        for text in (
            secret, quote_plus(secret), quote(quote(secret)), json.dumps({"a": secret}), json.dumps(json.dumps(secret)),
            repr([secret]), str(base64.b64encode(f"acc:{secret}:x".encode())), secret.upper(),
            base64.urlsafe_b64encode(secret.encode()).decode(),
        ):  # fmt: skip
            assert [each for each, _ in found_in(["before " + text + " after"])] == [name], text


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Everything]:
    """Everything that is logged by anyone at any level, with the HTTP client's own debug output on."""
    handler = Everything()
    root = logging.getLogger()
    names = (None, "jvq_fast", "urllib3", "urllib3.connectionpool", "requests", "http.client", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    root.addHandler(handler)
    for name in names:
        logging.getLogger(name).setLevel(1)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    gc.freeze()
    yield handler
    gc.unfreeze()
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def leftover_frames() -> list[str]:
    """Locals of frames of ours and of the HTTP libraries that are still about, in garbage too."""
    frames: list[types.FrameType] = []
    for each in gc.get_objects():
        if isinstance(each, types.TracebackType):
            frames.append(each.tb_frame)
        elif isinstance(each, types.FrameType):
            frames.append(each)
    places = ("/jvq_fast/", "/requests/", "/urllib3/", "/http/client")
    texts = []
    for frame in frames:
        if any(place in frame.f_code.co_filename for place in places):
            texts += [f"{frame.f_code.co_name} {name} {value!r}" for name, value in frame.f_locals.items()]
    return texts


def pickles(*things: object) -> list[str]:
    return [pickle.dumps(each, protocol).decode("latin-1") for each in things for protocol in (0, 2, 5)] + [
        pickle.dumps(each, 0).decode("raw_unicode_escape", "replace") for each in things
    ]


class Trial:
    """A client with canaries, and all that can be seen of it from outside."""

    def __init__(self, broker: Broker, folder: Path, **settings: Any) -> None:
        broker.ticket = CANARIES["ticket"]
        self.folder = folder
        self.texts: list[str] = []
        self.errors = 0
        self.client = paper(
            broker, folder, token=CANARIES["token"], account=CANARIES["account"], password=CANARIES["password"],
            **{"timeout": 5, "login_timeout": 5, "limits": WIDE, "lists_to_reject": 1, "allocation_interval": 0.0,
               **settings},
        )  # fmt: skip
        self.client.on_error(self._failed)
        self.client.on_order(self._keep)
        self.client.on_fill(self._keep)

    def _keep(self, *things: object) -> None:
        self.texts += [text for each in things for text in (repr(each), str(each))] + pickles(*things)

    def _failed(self, error: Exception, where: str) -> None:
        self.texts += [*anatomy(error), where, *pickles(error)]

    def fails(self, action: Callable[[], object]) -> BaseException:
        try:
            self._keep(action())
        except (jvq.TradeError, jvq.AllocationError) as error:
            self.errors += 1
            self.texts += [*anatomy(error), *pickles(error)]
            self._keep(getattr(error, "intent", None))
            return error
        raise AssertionError("it did not fail")

    def clean(self, logs: Everything, capsys: pytest.CaptureFixture[str], *, but: str = "") -> bool:
        """Nothing shows. `but`: a secret that the client has never been told."""
        wait(lambda: not any(each.name.startswith("jvq_fast trade /") for each in threading.enumerate()))
        client = self.client
        for each in (client, client._session, client._queries, client._placing, client._ledger, client._tracker):
            self.texts += [repr(each), repr(vars(each))]
        self.texts += [
            repr(client._session._ticket),
            repr(client.stats()),
            client.killed,
            repr(client._session._access),
        ]
        self._keep(*client.intents, *client.unknown)
        client.close()
        tickets = []
        for path in self.folder.rglob("*"):
            if path.is_file():
                (tickets if path.name == "ticket" else self.texts).append(path.read_bytes().decode("utf-8", "replace"))
                self.texts.append(path.name)
        printed = capsys.readouterr()
        assert found_in(self.texts, but=but) == []
        assert found_in(tickets, but="ticket") == []
        assert found_in([printed.out, printed.err], but=but) == []
        assert found_in(logs.texts, but=but) == []
        assert found_in(leftover_frames(), but=but) == []
        return True


# --- calls that fail ---


def raw(data: Callable[[], bytes]) -> Script:
    def script(peer: Peer) -> None:
        peer.send(data())

    return script


def body(make: Callable[[], bytes], status: int = 200, *headers: Callable[[], bytes]) -> Script:
    def script(peer: Peer) -> None:
        respond(make(), status, *[each() for each in headers])(peer)

    return script


def content(**fields: Any) -> Script:
    return body(
        lambda: json.dumps({name: each() if callable(each) else each for name, each in fields.items()}).encode()
    )


def echo() -> str:
    return echoes().decode()


def echo_head(peer: Peer) -> None:
    respond(b'{"code":"-1","message":"' + peer.head.partition(b"\r\n")[0] + b'"}')(peer)


def everything() -> dict[str, Any]:
    rows = [{"order_id": "1", "day": echo(), "time": echo(), "code": echo(), "hold_vol": echo(), "name": echo()}]
    return {"code": "0", "message": echo(), "list": rows, "hold_list": rows, "order_id": "", "total": "1", "ticket": ""}


FAILURES: dict[str, Script] = {
    "refused, with all of it": content(code="-1", message=echo),
    "refused, code and msg": content(code=echo, msg=lambda: [echo(), {echo(): echo()}]),
    "refused, and fields of secrets": content(
        code="-2", message="no", ticket=lambda: CANARIES["ticket"], list=lambda: [CANARIES], hold_list=echo
    ),
    "a reply that repeats the request": echo_head,
    "fields that are none": body(lambda: json.dumps(everything()).encode()),
    "lists that are none": content(
        code="0", message="", list=echo, hold_list=echo, order_id="", ticket=lambda: [echo()]
    ),
    "no code": content(message=echo, order_id="7", ticket=echo),
    "HTML": body(lambda: b"<html>" + echoes() + b"</html>"),
    "truncated": body(lambda: b'{"code":"0","message":"' + echoes()),
    "a list": body(lambda: json.dumps([echo()]).encode()),
    "500": body(echoes, 500, lambda: b"X-Echo: " + quote(echoes()).encode()),
    "502, empty": respond(b"", 502),
    "401": body(echoes, 401, lambda: b"WWW-Authenticate: Basic realm=" + quote(echoes()).encode()),
    "redirect": body(
        lambda: b"", 302, lambda: b"Location: http://127.0.0.1:1/?token=" + quote(CANARIES["token"]).encode()
    ),
    "reset": reset,
    "closed": lambda peer: None,
    "timeout": hang,
    "bad status": raw(lambda: b"HTTP/1.1 " + quote(echoes()).encode() + b"\r\n\r\n"),
    "garbage": raw(lambda: echoes() + b"\r\n\r\n"),
    "bad header": raw(lambda: b"HTTP/1.1 200 OK\r\n" + echoes() + b"\r\n\r\n"),
    "bad length": raw(lambda: b"HTTP/1.1 200 OK\r\nContent-Length: " + echoes() + b"\r\n\r\n"),
    "bad chunk": raw(lambda: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + echoes() + b"\r\n"),
    "incomplete": raw(lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + echoes()),
    "cookies": body(echoes, 403, lambda: b"Set-Cookie: t=" + quote(echoes()).encode()),
}  # fmt: skip
READABLE = list(FAILURES)[:7]  # what is made of a reply differs between the calls; how one gets lost does not
PATHS = [(call, failure) for call in ("login", "buy") for failure in FAILURES]
PATHS += [(call, failure) for call in ("check_order", "check_hold", "sale", "cancel") for failure in READABLE]


@pytest.mark.parametrize(("call", "failure"), PATHS)
def test_a_call_that_fails_shows_nothing(
    call: str, failure: str, tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {"timeout": 0.2, "login_timeout": 0.2} if failure == "timeout" else {}
    with Broker() as broker:
        trial = Trial(broker, tmp_path, polling=jvq.Polling(fast=60, slow=60), **quick)
        client = trial.client
        if call != "login":
            client.orders()
        order = client.buy("600519", "10", 100) if call == "cancel" else None
        broker.answers[call] = FAILURES[failure]
        actions: dict[str, Callable[[], object]] = {
            "login": client.login, "check_order": client.orders, "check_hold": client.positions,
            "buy": lambda: client.buy("600519", "10.01", 100), "sale": lambda: client.sell("600519", "10.01", 100),
            "cancel": lambda: client.cancel(order or ""),
        }  # fmt: skip
        # Of a list that can't be read the rest is told to on_error; a cancel needs no more than the code.
        works = {"check_order": failure == "fields that are none", "cancel": failure.endswith("that are none")}
        if works.get(call):
            trial._keep(actions[call]())
        else:
            trial.fails(actions[call])
        broker.answers = {}
        if client.unknown:
            client.orders()
        assert trial.clean(logs, capsys, but="ticket" if call == "login" else "")
    assert trial.errors == (not works.get(call, False))
    assert any("urllib3" in text for text in logs.texts)


ALLOCATIONS: dict[str, Script] = {
    "refused": content(code="-1", message=echo),
    "refused, code": content(code=echo, msg=echo),
    "500": body(echoes, 500),
    "HTML": body(echoes),
    "no server": content(code="0", echo=echo),
    "a server that is none": content(code="0", server=lambda: "ftp://" + CANARIES["token"]),
    "a server outside, with a token": content(
        code="0", server=lambda: "http://203.0.113.9:1/?token=" + CANARIES["token"]
    ),
    "a server outside, with a token in its path": content(
        code="0", server=lambda: "http://203.0.113.9:1/" + CANARIES["token"]
    ),
    "a server with a password": content(
        code="0", server=lambda: f"http://{CANARIES['account']}:{quote(CANARIES['password'])}@127.0.0.1:1"
    ),
    "nobody there, with secrets in its path": content(
        code="0", server=lambda: f"http://127.0.0.1:1/{CANARIES['token']}/{CANARIES['account']}"
    ),
    "an unknown host": content(code="0", server=lambda: f"http://{CANARIES['token']}.invalid:1"),
    "redirect": body(lambda: b"", 302, lambda: b"Location: http://127.0.0.1:1/?t=" + CANARIES["token"].encode()),
    "reset": lambda peer: peer.reset(),
    "timeout": hang,
}


@pytest.mark.parametrize("failure", ALLOCATIONS)
def test_an_allocation_that_fails_shows_nothing(
    failure: str, tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(peer: Peer) -> None:
        peer.read_head()
        ALLOCATIONS[failure](peer)

    with Broker() as broker, ScriptServer(answer) as service:
        trial = Trial(broker, tmp_path, allocation=service.http, allocation_timeout=0.3)
        trial.fails(trial.client.login)
        trial.fails(lambda: trial.client.buy("600519", "10", 100))
        assert trial.clean(logs, capsys, but="ticket")
        assert CANARIES["token"].encode() in service.heads[0] or failure == "timeout"


def test_nobody_there_shows_nothing(tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        trial.client.orders()
    for action in (trial.client.orders, trial.client.account, lambda: trial.client.buy("600519", "10", 100)):
        trial.fails(action)
    assert trial.clean(logs, capsys)


def test_a_name_that_can_not_be_looked_up_shows_nothing(
    tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path)

        def fail(*arguments: Any, **options: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, f"{CANARIES['token']} is not known")

        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", fail)
            trial.fails(trial.client.login)
        assert trial.clean(logs, capsys)


def test_what_works_shows_nothing(tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        client = trial.client
        trial._keep(client.login(), client.account(), client.positions())
        order = client.buy("600519", "10", 100)
        trial._keep(order, *client.orders(), client.cancel(order), client.wait(order, 20))
        trial._keep(client.submit_sell("600519", "10", 100).result(20))
        assert trial.clean(logs, capsys)
    sent = dict(broker.requests[0][1])
    assert sent == {
        "token": CANARIES["token"], "acc": CANARIES["account"], "pass": CANARIES["password"]
    }  # fmt: skip
    assert broker.requests[1][1]["ticket"] == CANARIES["ticket"]


def test_names_that_repeat_secrets_show_nothing(
    tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts of a reply that is good otherwise."""
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        client = trial.client
        order = client.buy("600519", "10", 100)
        broker.rows[0] |= {"name": echo(), "status": echo(), "deal_volume": "100", "deal_price": "10"}
        broker.held[0]["name"] = echo()
        trial._keep(*client.orders(), client.account(), client.order(order))
        broker.rows[0]["type"] = echo()
        trial._keep(*client.orders(), client.account(), client.order(order))
        assert trial.clean(logs, capsys)


def test_a_ticket_that_is_a_number_does_not_change_what_the_broker_says(tmp_path: Path) -> None:
    """Six digits are a common password, and blotting them out of an order's number would lose the order."""
    with Broker() as broker:
        broker.ticket = "334"
        with paper(broker, tmp_path, password="133456") as client:
            order = client.buy("600519", "10", 100)
            assert order.order_id == "1334564"
            client.cancel(order)
            assert broker.calls("cancel")[0]["order_id"] == "1334564"
            done = client.wait(order, 20)
            assert (done.order_id, done.status) == ("1334564", jvq.Status.CANCELLED)


# --- wrong arguments, files, and the rest ---


def made(**settings: Any) -> BaseException:
    """Made in a frame of its own: a caller that holds a secret in a local shows it himself."""
    texts = {name: CANARIES[name] for name in ("token", "account", "password")}
    try:
        jvq.TradeClient(
            *({**texts, **settings}[each] for each in texts),
            **{name: each for name, each in settings.items() if name not in texts},
        )
    except (ValueError, TypeError, jvq.TradeError) as error:
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
        return error
    raise AssertionError(settings)


WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "token with a blank": lambda: {"token": CANARIES["token"] + " "},
    "token as bytes": lambda: {"token": CANARIES["token"].encode()},
    "token in a list": lambda: {"token": [CANARIES["token"]]},
    "account too long": lambda: {"account": CANARIES["account"] + "1"},
    "account as a number": lambda: {"account": int(CANARIES["account"])},
    "account and password swapped": lambda: {"account": CANARIES["password"], "password": CANARIES["account"]},
    "no password": lambda: {"password": ""},
    "password as bytes": lambda: {"password": CANARIES["password"].encode()},
    "mode": lambda: {"mode": "wet"},
    "server with a token": lambda: {"mode": "paper", "server": "ftp://h?token=" + CANARIES["token"]},
    "server outside with a token": lambda: {
        "mode": "paper",
        "server": "http://203.0.113.9/?token=" + CANARIES["token"],
    },
    "server that is the token": lambda: {"mode": "paper", "server": CANARIES["token"]},
    "allocation with a token": lambda: {"mode": "paper", "allocation": "http://h?token=" + CANARIES["token"]},
    "allocation that is the token": lambda: {"mode": "paper", "allocation": "http://" + CANARIES["token"]},
    "live with a server": lambda: {"mode": "live", "server": "http://h/" + CANARIES["token"]},
    "timeout": lambda: {"timeout": 0},
    "lists": lambda: {"lists_to_reject": 0},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_client_that_is_not_made_shows_nothing(case: str) -> None:
    error = made(**WRONG[case]())
    assert found_in([*anatomy(error), *pickles(error)]) == []


@pytest.fixture
def private(tmp_path: Path) -> Path:
    (tmp_path / "journal").touch(0o600)
    (tmp_path / "ticket").touch(0o600)
    return tmp_path


def spoil_journal(folder: Path) -> None:
    (folder / "journal").chmod(0o644)


def damage_journal(folder: Path) -> None:
    (folder / "journal").write_bytes(b"garbage\ngarbage\n")


def link_journal(folder: Path) -> None:
    (folder / "journal").rename(folder / "other")
    (folder / "journal").symlink_to(folder / "other")


def folder_for_journal(folder: Path) -> None:
    (folder / "journal").unlink()
    (folder / "journal").mkdir()


def other_journal(folder: Path) -> None:
    with Broker() as broker:
        paper(broker, folder).close()


@pytest.mark.parametrize("spoil", [spoil_journal, damage_journal, link_journal, folder_for_journal, other_journal])
def test_a_journal_that_is_not_used_shows_nothing(spoil: Callable[[Path], None], private: Path) -> None:
    spoil(private)
    error = made(mode="paper", server="127.0.0.1:1", journal=private / "journal", ticket_file=private / "ticket")
    assert isinstance(error, jvq.JournalError)
    assert found_in([*anatomy(error), *pickles(error)]) == []


def open_ticket(folder: Path) -> None:
    (folder / "ticket").chmod(0o644)


def link_ticket(folder: Path) -> None:
    (folder / "ticket").unlink()
    (folder / "ticket").symlink_to(folder / "elsewhere")


def folder_for_ticket(folder: Path) -> None:
    (folder / "ticket").unlink()
    (folder / "ticket").mkdir()


def no_folder(folder: Path) -> None:
    (folder / "ticket").unlink()


@pytest.mark.parametrize("spoil", [open_ticket, link_ticket, folder_for_ticket, no_folder])
def test_a_ticket_file_that_is_not_used_shows_nothing(
    spoil: Callable[[Path], None], private: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(private)
    where = private / "no such folder" / "ticket" if spoil is no_folder else private / "ticket"
    with Broker() as broker:
        trial = Trial(broker, private, ticket_file=where)
        assert isinstance(trial.fails(trial.client.login), jvq.TicketError)
        assert trial.clean(logs, capsys)


def test_a_journal_that_can_not_be_written_shows_nothing(
    tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        trial.client.orders()

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("jvq_fast.trade.journal.os.write", full)
            trial.fails(lambda: trial.client.buy("600519", "10", 100))
        assert broker.calls("buy") == []
        assert trial.clean(logs, capsys)


def test_reasons_of_the_kill_switch_show_nothing(
    tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        client = trial.client
        client.orders()
        client.kill("because of " + echo())
        trial.fails(lambda: client.buy("600519", "10", 100))
        trial.texts.append(client.killed)
        client.rearm()
        path = client.kill_file
        assert path is not None
        path.write_text("by hand\n" + echo())
        trial.fails(lambda: client.buy("600519", "10", 100))
        trial.texts.append(client.killed)
        client.rearm()
        assert trial.clean(logs, capsys)


def test_refusals_of_the_gate_and_of_money_show_nothing(
    tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path, limits=jvq.Limits(), budget="0.90")
        client = trial.client
        trial.fails(lambda: client.buy("600519", "10", 50))
        trial.fails(lambda: client.buy("600519", "20", 100))
        trial.fails(lambda: client.sell("000001", "10", 100))
        trial.fails(lambda: [client.account() for _ in range(50)])
        assert trial.clean(logs, capsys)


def test_wrong_orders_show_nothing(tmp_path: Path) -> None:
    texts: list[str] = []
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        client = trial.client
        calls: list[Callable[[], object]] = [
            lambda: client.buy(CANARIES["token"], "10", 100), lambda: client.buy("600519", CANARIES["password"], 100),
            lambda: client.cancel(CANARIES["ticket"]), lambda: client.cancel(CANARIES["account"]),
            lambda: client.buy(CANARIES["token"].encode(), "10", 100),  # type: ignore[arg-type]
            lambda: client.buy("600519", "10", CANARIES["password"]),  # type: ignore[arg-type]
        ]  # fmt: skip
        client.orders()
        for call in calls:
            try:
                call()
            except (ValueError, TypeError) as error:
                texts += [str(error), repr(error)]
        client.close()
    assert len(texts) == 2 * len(calls)
    assert found_in(texts) == []


def test_an_interrupted_order_shows_nothing(
    tmp_path: Path, logs: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Broker() as broker:
        trial = Trial(broker, tmp_path, polling=jvq.Polling(fast=60, slow=60))
        trial.client.orders()
        before = signal.signal(signal.SIGUSR1, interrupt)
        broker.answers["buy"] = hang
        main = threading.get_ident()
        broker.before = lambda call, query: signal.pthread_kill(main, signal.SIGUSR1) if call == "buy" else None
        try:
            with pytest.raises(KeyboardInterrupt) as caught:
                trial.client.buy("600519", "10", 100)
        finally:
            signal.signal(signal.SIGUSR1, before)
        trial.texts += anatomy(caught.value)
        (intent,) = trial.client.unknown
        assert "interrupted by KeyboardInterrupt" in intent.cause
        assert trial.clean(logs, capsys)


def test_nothing_with_a_secret_in_it_can_be_pickled(tmp_path: Path) -> None:
    with Broker() as broker:
        trial = Trial(broker, tmp_path)
        trial.client.login()
        session = trial.client._session
        for each in (trial.client, session, session._ticket, session._file, Secret(CANARIES["password"])):
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
                pickle.dumps(each)
            assert found_in([repr(each), str(each), f"{each}"]) == []
        trial.client.close()


def test_a_dry_order_shows_nothing(logs: Everything, capsys: pytest.CaptureFixture[str]) -> None:
    client = jvq.TradeClient(
        CANARIES["token"], CANARIES["account"], CANARIES["password"], market=Market(), clock=Clock(), limits=WIDE
    )
    order = client.buy("600519", "10", 100)
    texts = [repr(order), str(order), order.request, repr(client), repr(vars(client)), *pickles(order, *client.intents)]
    printed = capsys.readouterr()
    assert found_in([*texts, *logs.texts, printed.out, printed.err]) == []


def test_live_warns_once_that_the_interface_is_plain_http(
    tmp_path: Path, logs: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jvq_fast.trade.client._warned", threading.Event())
    for number in range(3):
        jvq.TradeClient(
            CANARIES["token"], CANARIES["account"], CANARIES["password"], mode="live",
            journal=tmp_path / str(number), ticket_file=tmp_path / "ticket",
        ).close()  # fmt: skip
    assert len([text for text in logs.texts if text.startswith("the vendor's trade interface is plain HTTP")]) == 1
    assert found_in(logs.texts) == []
