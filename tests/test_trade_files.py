"""What the trade client keeps on disk: the ticket, the journal and the kill switch."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import journal_lines
import jvq_fast as jvq
from jvq_fast.allocation import ServerAddress
from jvq_fast.redact import Secret, redact
from jvq_fast.trade import private
from jvq_fast.trade.kill import KillSwitch
from jvq_fast.trade.ticket import Ticket, TicketFile
from trade_script import ACCOUNT, PASSWORD, WAIT, WIDE, Broker, few_rounds, hang, paper, respond, wait
from ws_script import TOKEN

__all__ = ["few_rounds"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")
SLOW = jvq.Polling(fast=60, slow=60)
HERE = ServerAddress("http", "127.0.0.1", 1)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the ticket ---


def ticket(expires: float = 9000.0, lifetime: float = 9000.0, text: str = "a ticket") -> Ticket:
    return Ticket(Secret(text), HERE, expires, lifetime)


def tickets(path: Path, now: float = 0.0, account: str = ACCOUNT, mode: str = "paper") -> TicketFile:
    return TicketFile(path, Secret(account), mode, lambda: now)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_ticket_file_is_its_owners_from_the_start(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    before = os.umask(umask)
    try:
        tickets(tmp_path / "ticket").save(ticket())
    finally:
        os.umask(before)
    assert all(not mode & 0o077 for mode in modes)
    assert modes
    assert not mode_of(tmp_path / "ticket") & 0o177
    assert [path.name for path in tmp_path.iterdir()] == ["ticket"]


def test_a_ticket_file_is_replaced_whole(tmp_path: Path) -> None:
    """A reader that runs along finds one ticket or the other, never half of one and never none."""
    path = tmp_path / "ticket"
    file = tickets(path)
    file.save(ticket(text="ticket 0"))
    stop, faults, reads = threading.Event(), [], [0]

    def read() -> None:
        while not stop.is_set():
            found = tickets(path).load()
            if found is None or not found.secret.reveal().startswith("ticket "):
                faults.append(found)
            reads[0] += 1

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    number = 0
    while reads[0] < 50 and number < 5000:
        number += 1
        file.save(ticket(text=f"ticket {number}" + "x" * (number % 100)))
    stop.set()
    reader.join(WAIT)
    assert faults == []
    assert reads[0] > 0


def test_a_ticket_file_that_can_not_be_replaced_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ticket"
    tickets(path).save(ticket(text="old"))

    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jvq_fast.trade.private.os.write", full)
        with pytest.raises(jvq.TicketError, match="No space left"):
            tickets(path).save(ticket(text="new"))
    found = tickets(path).load()
    assert found is not None
    assert found.secret.reveal() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["ticket"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_ticket_that_others_can_get_at_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    tickets(path).save(ticket())
    path.chmod(mode)
    with pytest.raises(jvq.TicketError, match="chmod 600"):
        tickets(path).load()
    with Broker() as broker, paper(broker, tmp_path) as client:
        with pytest.raises(jvq.TicketError, match="chmod 600"):
            client.login()
        assert broker.requests == []
        path.chmod(0o600)
        client.login()


@pytest.mark.parametrize("kind", ["link", "link to nothing", "folder", "pipe"])
def test_a_ticket_that_is_no_plain_file_is_refused(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "ticket", tmp_path / "other"
    if kind == "link":
        tickets(other).save(ticket())
        path.symlink_to(other)
    elif kind == "link to nothing":
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir(0o700)
    else:
        os.mkfifo(path, 0o600)
    with pytest.raises(jvq.TicketError, match="ticket file"):
        tickets(path).load()


def test_a_ticket_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    path = tmp_path / "ticket"
    tickets(path).save(ticket())
    os.chown(path, 65534, -1)
    with pytest.raises(jvq.TicketError, match="another user"):
        tickets(path).load()


@pytest.mark.parametrize(
    ("lifetime", "now", "good"),
    [(9000, 0, True), (9000, 8879.9, True), (9000, 8880.0, False), (9000, 9001, False), (600, 539.9, True),
     (600, 540.0, False), (10, 8.9, True), (10, 9.0, False), (0, 0, False)],
)  # fmt: skip
def test_a_ticket_is_used_until_shortly_before_its_end(lifetime: float, now: float, good: bool, tmp_path: Path) -> None:
    tickets(tmp_path / "ticket").save(ticket(lifetime, lifetime))
    assert (tickets(tmp_path / "ticket", now).load() is not None) is good


def test_a_ticket_is_kept_for_the_next_process(tmp_path: Path) -> None:
    with Broker() as broker:
        for _ in range(3):
            with paper(broker, tmp_path) as client:
                client.orders()
                until = client.login()
                assert until.utcoffset() is not None
        assert len(broker.calls("login")) == 1
        assert {query["ticket"] for query in broker.calls("check_order")} == {broker.ticket}
        kept = json.loads((tmp_path / "ticket").read_bytes())
        assert abs(kept["expires"] - time.time() - 9000) < WAIT
        kept["expires"] = time.time() + 100
        (tmp_path / "ticket").write_text(json.dumps(kept))
        with paper(broker, tmp_path) as client:
            client.orders()
        assert len(broker.calls("login")) == 2


@pytest.mark.parametrize("expire", ["9000", 9000, 9000.5, "9000.0"])
def test_expire_may_be_a_text_or_a_number(expire: object, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path) as client:
        broker.expire = expire
        assert abs(client.login().timestamp() - time.time() - 9000) < WAIT


@pytest.mark.parametrize("expire", [None, "", "soon", "nan", [], {}])
def test_an_expire_that_says_nothing_makes_a_short_life(expire: object, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path) as client:
        broker.expire = expire
        assert 0 < client.login().timestamp() - time.time() <= 900


@pytest.mark.parametrize("expire", ["0", 0, -1, "-3600"])
def test_an_expire_in_the_past_is_not_a_login_and_its_fee_for_each_call(expire: object, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path) as client:
        broker.expire = expire
        client.orders()
        client.orders()
        assert len(broker.calls("login")) == 1


def test_a_short_ticket_is_renewed(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path) as client:
        broker.expire = "0.001"
        client.orders()
        client.orders()
        assert len(broker.calls("login")) >= 2


def test_the_ticket_of_another_account_mode_or_server_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    tickets(path).save(ticket())
    assert tickets(path, account="210987654321").load() is None
    assert tickets(path, mode="live").load() is None
    assert tickets(path).load() is not None
    with Broker() as broker:
        kept = json.loads(path.read_bytes()) | {"expires": time.time() + 9000}
        path.write_text(json.dumps(kept))
        with paper(broker, tmp_path) as client:
            client.orders()
        assert len(broker.calls("login")) == 1  # that one was good with port 1


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"mode":"paper"}', b"\xff\xfe", b"[" * 60_000, b"0" * 100_000]
)
def test_a_ticket_file_that_says_nothing_is_as_good_as_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    path.touch(0o600)
    path.write_bytes(data)
    with Broker() as broker, paper(broker, tmp_path) as client:
        client.login()
        assert len(broker.calls("login")) == 1
        with paper(broker, tmp_path, journal=tmp_path / "another") as another:
            another.login()
            assert len(broker.calls("login")) == 1


def test_a_ticket_that_the_broker_refuses_is_forgotten(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path) as client:
        client.orders()
        broker.answers["check_order"] = respond(b'{"code":"-7","message":"ticket expired"}')
        with pytest.raises(jvq.TradeError, match="ticket expired"):
            client.orders()
        assert not (tmp_path / "ticket").exists()
        del broker.answers["check_order"]
        client.orders()
        assert len(broker.calls("login")) == 2


def test_one_login_at_a_time_for_all_threads(tmp_path: Path) -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def before(call: str, query: dict[str, str]) -> None:
        if call != "login":
            return
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.1)
        with lock:
            inside[0] -= 1

    with Broker() as broker, paper(broker, tmp_path) as client:
        broker.before = before
        begin = threading.Barrier(8)
        done: list[object] = []

        def ask(number: int) -> None:
            begin.wait(WAIT)
            done.append(client.orders() if number % 2 else client.login())

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert len(done) == 8
        assert len(broker.calls("login")) == 1
        assert most == [1]


def test_what_a_kill_left_of_a_ticket_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, others = tmp_path / f".ticket.{'0' * 16}", [tmp_path / ".ticket.mine", tmp_path / f".other.{'0' * 16}"]
    for path in (left, *others):
        path.write_text("a ticket")
    with Broker() as broker:
        with paper(broker, tmp_path) as client:
            client.login()
        assert left.exists(), "it may be another process's, which is about to put it in its place"
        monkeypatch.setattr("jvq_fast.trade.private._IN_USE", -1.0)
        with paper(broker, tmp_path) as client:
            client.login()
    assert not left.exists()
    assert all(path.exists() for path in others)


# --- the journal ---


def lines(folder: Path) -> list[dict[str, Any]]:
    return list(journal_lines.read(folder / "journal"))


@pytest.fixture
def traded(tmp_path: Path) -> Iterator[Broker]:
    """A journal with three orders in it."""
    with Broker() as broker:
        with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            for price in ("10.00", "10.01", "10.02"):
                client.buy("600519", price, 100)
        yield broker


def reopen(broker: Broker, folder: Path, **settings: Any) -> jvq.TradeClient:
    return paper(broker, folder, **{"limits": WIDE, "polling": SLOW, **settings})


def test_a_journal_is_its_owners_alone(traded: Broker, tmp_path: Path) -> None:
    assert mode_of(tmp_path / "journal") == 0o600
    (tmp_path / "journal").chmod(0o644)
    with pytest.raises(jvq.JournalError, match="chmod 600"):
        reopen(traded, tmp_path)
    (tmp_path / "journal").rename(tmp_path / "other")
    (tmp_path / "journal").symlink_to(tmp_path / "other")
    with pytest.raises(jvq.JournalError, match="can't be opened"):
        reopen(traded, tmp_path)


def test_an_intent_is_on_disk_before_its_first_byte_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if os.path.samestat(os.fstat(descriptor), (tmp_path / "journal").stat()):
            synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    seen: list[tuple[list[str], bool]] = []
    with Broker() as broker, paper(broker, tmp_path, polling=SLOW) as client:
        client.orders()

        def before(call: str, query: dict[str, str]) -> None:
            if call in ("buy", "cancel"):
                data = (tmp_path / "journal").read_bytes()
                entries = [each["what"] for each in lines(tmp_path)]
                seen.append((entries, data[: synced[-1]].count(b'"what":"intent"') == entries.count("intent")))

        broker.before = before
        order = client.buy("600519", "10", 100)
        client.cancel(order)
    (bought, bought_synced), (cancelled, cancelled_synced) = seen
    assert bought.count("intent") == 1
    assert "outcome" not in bought
    assert cancelled.count("intent") == 2
    assert cancelled.count("outcome") == 1
    assert bought_synced
    assert cancelled_synced
    assert [each["outcome"] for each in lines(tmp_path) if each["what"] == "outcome"] == ["accepted", "accepted"]


CHILD = """
import sys
import jvq_fast as jvq
try:
    jvq.TradeClient({token!r}, {account!r}, {password!r}, mode="paper", server="127.0.0.1:1",
                    journal={journal!r}, ticket_file={ticket!r})
except jvq.AccountInUseError as error:
    print("in use:", error)
"""


def test_a_second_process_is_refused(
    tmp_path: Path, run_python: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    script = CHILD.format(
        token=TOKEN, account=ACCOUNT, password=PASSWORD, journal=str(tmp_path / "journal"), ticket=str(tmp_path / "t")
    )
    with Broker() as broker, paper(broker, tmp_path) as client:
        before = (tmp_path / "journal").read_bytes()
        assert "another process" in run_python("-c", script).stdout
        assert (tmp_path / "journal").read_bytes() == before
        with pytest.raises(jvq.AccountInUseError):
            paper(broker, tmp_path)
        client.buy("600519", "10", 100)


def test_a_journal_is_free_again_after_its_process(traded: Broker, tmp_path: Path) -> None:
    script = "\n".join(
        [
            "import os, jvq_fast as jvq",
            "import jvq_fast.trade.private as private",
            "private._ROUNDS = 1",
            f"client = jvq.TradeClient({TOKEN!r}, {ACCOUNT!r}, {PASSWORD!r}, mode='paper', server='127.0.0.1:1',",
            f"    journal={str(tmp_path / 'journal')!r}, ticket_file={str(tmp_path / 't')!r})",
            "print(len(client.intents), flush=True)",
            "import time; time.sleep(60)",
        ]
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "3\n"
        with pytest.raises(jvq.AccountInUseError):
            reopen(traded, tmp_path)
    finally:
        child.kill()
        child.wait(WAIT)
        assert child.stdout is not None
        child.stdout.close()
    with reopen(traded, tmp_path) as client:
        assert len(client.intents) == 3


def test_a_torn_last_line_is_cut_off(traded: Broker, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = path.read_bytes()
    last = len(whole) - len(whole.splitlines(keepends=True)[-1])
    for cut in sorted({last + 1, last + 8, last + 9, last + 20, len(whole) - 2, len(whole) - 1}):
        path.write_bytes(whole[:cut])
        with reopen(traded, tmp_path) as client:
            assert len(client.intents) == 3
        assert path.read_bytes()[: last + 1] == whole[:last] + path.read_bytes()[last : last + 1]
        assert all(line.endswith(b"\n") for line in path.read_bytes().splitlines(keepends=True))
    path.write_bytes(whole + b"\0" * 512)
    with reopen(traded, tmp_path) as client:
        assert len(client.intents) == 3
        client.buy("600519", "9.99", 100)
    with reopen(traded, tmp_path) as client:
        assert len(client.intents) == 4


def test_a_last_line_that_is_whole_and_damaged_may_have_been_an_order(traded: Broker, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = path.read_bytes()
    for at in (-3, -40):
        damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at:][1:]
        path.write_bytes(damaged)
        with pytest.raises(jvq.JournalError, match="is damaged at byte"):
            reopen(traded, tmp_path)
        assert path.read_bytes() == damaged


def test_a_torn_intent_was_never_sent(tmp_path: Path) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path, polling=SLOW) as client:
            client.login()
        path = tmp_path / "journal"
        whole = path.read_bytes()
        path.write_bytes(whole + b'01234567 {"what":"intent","number":1,"act')
        with paper(broker, tmp_path, polling=SLOW) as client:
            assert client.intents == ()
        assert path.read_bytes() == whole


def test_damage_in_the_middle_is_refused_and_left_as_it_is(traded: Broker, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = path.read_bytes()
    rows = whole.splitlines(keepends=True)
    at = len(rows[0]) + len(rows[1]) // 2
    damaged = [
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        whole[: len(rows[0])] + b"garbage\n" + whole[len(rows[0]) :],
        b"".join([rows[0], rows[1][:-5], *rows[2:]]),
        b"\n" + whole,
        whole[:at] + b"\0" * 16 + whole[at + 16 :],
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(jvq.JournalError, match="is damaged at byte"):
            reopen(traded, tmp_path)
        assert path.read_bytes() == data
    path.write_bytes(whole)
    reopen(traded, tmp_path).close()


def test_the_journal_of_another_account_or_mode_is_refused(traded: Broker, tmp_path: Path) -> None:
    with pytest.raises(jvq.JournalError, match="another account's"):
        reopen(traded, tmp_path, account="210987654321")
    with pytest.raises(jvq.JournalError, match="of mode paper, not live"):
        jvq.TradeClient(
            TOKEN, ACCOUNT, PASSWORD, mode="live", journal=tmp_path / "journal", ticket_file=tmp_path / "ticket"
        )
    assert ACCOUNT.encode() not in (tmp_path / "journal").read_bytes()
    reopen(traded, tmp_path).close()


def test_entries_that_say_nonsense_are_refused(traded: Broker, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = path.read_bytes()
    for entry in (
        {"what": "intent", "number": 9}, {"what": "outcome", "number": 77, "outcome": "accepted", "order_id": "1"},
        {"what": "outcome", "number": 1, "outcome": "perhaps"}, {"what": "call", "day": "never", "call": "buy"},
        {"what": "order", "order_id": "1"},
    ):  # fmt: skip
        path.write_bytes(whole + journal_lines.line(entry))
        with pytest.raises(jvq.JournalError, match="can't be read"):
            reopen(traded, tmp_path)
    path.write_bytes(whole)
    reopen(traded, tmp_path).close()  # whoever was refused has given it up


def test_on_a_full_disk_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        order = client.buy("600519", "10", 100)
        whole = (tmp_path / "journal").read_bytes()
        real = os.write

        def full(descriptor: int, data: Any) -> int:
            real(descriptor, bytes(data)[:20])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("jvq_fast.trade.journal.os.write", full)
            for call in (
                lambda: client.buy("600519", "10.01", 100),
                lambda: client.submit_buy("600519", "10.02", 100).result(WAIT),
                lambda: client.cancel(order),
            ):
                with pytest.raises(jvq.JournalError, match="No space left on device"):
                    call()
        assert (tmp_path / "journal").read_bytes() == whole
        assert len(broker.calls("buy")) == 1
        assert broker.calls("cancel") == []
        assert len(client.intents) == 1
        client.buy("600519", "10.01", 100)
        client.cancel(order)
    assert len(lines(tmp_path)) > 3
    with reopen(broker, tmp_path) as client:
        assert len(client.intents) == 3


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    """The real thing, by RLIMIT_FSIZE."""
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        client.orders()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (tmp_path / "journal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        try:
            with pytest.raises(jvq.JournalError, match="File too large"):
                client.buy("600519", "10", 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert broker.calls("buy") == []
        assert (tmp_path / "journal").stat().st_size == size
        client.buy("600519", "10", 100)


def test_an_outcome_that_can_not_be_written_stops_all_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker:
        client = paper(broker, tmp_path, limits=WIDE, polling=SLOW)
        client.orders()
        real = os.write

        def full(descriptor: int, data: Any) -> int:
            if b'"outcome"' in bytes(data):
                raise OSError(5, "Input/output error")
            return real(descriptor, data)

        with monkeypatch.context() as patched:
            patched.setattr("jvq_fast.trade.journal.os.write", full)
            order = client.buy("600519", "10", 100)
        assert order.order_id
        for call in (lambda: client.buy("000001", "10", 100), lambda: client.cancel(order)):
            with pytest.raises(jvq.JournalError, match="made anew"):
                call()
        client.close()
        with reopen(broker, tmp_path) as again:
            # Unknown to the next process, which looks it up before anything else.
            assert [each.outcome for each in again.intents] == [jvq.Outcome.UNKNOWN]
            again.orders()
            assert [each.outcome for each in again.intents] == [jvq.Outcome.ACCEPTED]
        assert len(broker.calls("buy")) == 1


def test_an_fsync_that_fails_means_that_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        client.orders()

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr("jvq_fast.trade.journal.os.fsync", fail)
            with pytest.raises(jvq.JournalError, match="Input/output"):
                client.buy("600519", "10", 100)
        assert broker.calls("buy") == []
    with reopen(broker, tmp_path) as client:
        assert client.intents == ()


def test_files_without_a_name_lie_in_the_state_folder_and_do_not_name_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with Broker() as broker:
        with jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, mode="paper", server=broker.http) as client:
            client.login()
            with pytest.raises(jvq.AccountInUseError):
                jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, mode="paper", server=broker.http)
            jvq.TradeClient(TOKEN, "210987654321", PASSWORD, mode="paper", server=broker.http).close()
        folder = tmp_path / "state" / "jvq_fast" / "trade"
        names = sorted(path.name for path in folder.iterdir())
        assert mode_of(folder) == 0o700
        assert len(names) == 4  # the salt, two journals, a ticket
        for path in folder.iterdir():
            assert mode_of(path) == 0o600
            assert ACCOUNT not in path.name
            assert ACCOUNT.encode() not in path.read_bytes()


def test_processes_that_start_at_once_agree_on_the_files_of_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two of them could trade one account, each with a journal of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    secret = Secret(ACCOUNT)
    for _ in range(30):
        begin = threading.Barrier(8)
        found: list[tuple[Path, Path]] = []

        def look(begin: threading.Barrier = begin, found: list[tuple[Path, Path]] = found) -> None:
            begin.wait(WAIT)
            found.append(private.default_paths(secret, "paper"))

        threads = [threading.Thread(target=look, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert len(found) == 8
        assert len(set(found)) == 1
        (tmp_path / "jvq_fast" / "trade" / "salt").unlink()


# --- the kill switch ---


def check_killed(client: jvq.TradeClient, broker: Broker, why: str) -> None:
    before = len(broker.calls("buy", "sale"))
    assert client.killed
    for call in (client.buy, client.sell):
        with pytest.raises(jvq.KilledError, match=why) as caught:
            call("600519", "10", 100)
        assert (caught.value.limit, caught.value.allowed, caught.value.actual) == ("kill switch", "off", "on")
    for submit in (client.submit_buy, client.submit_sell):
        with pytest.raises(jvq.KilledError, match=why):
            submit("600519", "10", 100).result(WAIT)
    assert len(broker.calls("buy", "sale")) == before


@pytest.fixture
def trading(tmp_path: Path) -> Iterator[tuple[Broker, jvq.TradeClient]]:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        client.orders()
        yield broker, client


def test_the_switch_is_thrown_by_a_call_and_re_armed_by_hand(trading: tuple[Broker, jvq.TradeClient]) -> None:
    broker, client = trading
    order = client.buy("600519", "10", 100)
    assert client.killed == ""
    client.kill("too much lost")
    check_killed(client, broker, "too much lost")
    client.cancel(order)  # cancels still go
    client.orders()
    assert len(broker.calls("cancel")) == 1
    client.rearm()
    assert client.killed == ""
    client.buy("600519", "10", 100)
    client.rearm()  # a second time does nothing


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\n\xff", b"x" * 100_000, "手工\n停止".encode()])
def test_the_switch_is_thrown_by_a_file(content: bytes, trading: tuple[Broker, jvq.TradeClient]) -> None:
    broker, client = trading
    path = client.kill_file
    assert path is not None
    path.write_bytes(content)
    check_killed(client, broker, ".")
    assert client.killed
    client.rearm()
    assert not path.exists()
    client.buy("600519", "10", 100)


def test_a_folder_in_place_of_the_file_throws_it_too(trading: tuple[Broker, jvq.TradeClient]) -> None:
    broker, client = trading
    path = client.kill_file
    assert path is not None
    path.mkdir()
    check_killed(client, broker, "can't be read")
    with pytest.raises(OSError, match="kill"):
        client.rearm()
    check_killed(client, broker, "can't be read")
    path.rmdir()
    client.rearm()
    client.buy("600519", "10", 100)


def test_the_switch_is_thrown_by_a_signal(trading: tuple[Broker, jvq.TradeClient]) -> None:
    broker, client = trading
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        client.kill_on(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR2)
        assert heard == [signal.SIGUSR2]
        check_killed(client, broker, "SIGUSR2")
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_may_come_at_any_moment(trading: tuple[Broker, jvq.TradeClient]) -> None:
    """While its thread looks at the switch, throws it or blots out secrets, too: it must not wait for itself."""
    broker, client = trading
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    main = threading.get_ident()

    def send() -> None:
        for number in range(100):
            signal.pthread_kill(main, signal.SIGUSR2)
            wait(lambda number=number: len(heard) > number)

    try:
        client.kill_on(signal.SIGUSR2)
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        deadline = time.monotonic() + WAIT
        while sender.is_alive() and time.monotonic() < deadline:
            assert "SIGUSR2" in client.killed or not client.killed
            redact("nothing to see")
        sender.join(WAIT)
        assert len(heard) == 100
        check_killed(client, broker, "SIGUSR2")
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_switch_survives_a_restart(tmp_path: Path) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path) as client:
            client.kill("before lunch")
        with paper(broker, tmp_path) as client:
            check_killed(client, broker, "before lunch")
            client.rearm()
        with paper(broker, tmp_path) as client:
            client.buy("600519", "10", 100)


def test_a_file_that_vanishes_does_not_re_arm(trading: tuple[Broker, jvq.TradeClient]) -> None:
    broker, client = trading
    path = client.kill_file
    assert path is not None
    for throw in (lambda: client.kill("a call"), path.touch):
        throw()
        assert client.killed
        path.unlink()
        check_killed(client, broker, ".")
        client.rearm()
        client.buy("600519", "10", 100)


def test_a_file_that_vanishes_while_nobody_trades_does_not_re_arm(tmp_path: Path) -> None:
    with Broker() as broker:
        for throw in (lambda client: client.kill("a call"), lambda client: client.kill_file.touch()):
            with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
                throw(client)
                assert client.killed
                path = client.kill_file
            assert path is not None
            path.unlink()
            with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
                check_killed(client, broker, ".")
                KillSwitch(tmp_path / "journal").rearm()
                client.buy("600519", "10", 100)
            with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
                assert client.killed == ""


def test_another_process_re_arms(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        other = KillSwitch(tmp_path / "journal")
        client.kill("once")
        assert client.killed == other.why() == "once"
        other.rearm()
        assert client.killed == ""
        client.buy("600519", "10", 100)
        other.throw("from outside")
        check_killed(client, broker, "from outside")
        other.rearm()
        client.buy("600519", "10", 100)


def test_an_old_re_arming_does_not_end_a_new_throw(trading: tuple[Broker, jvq.TradeClient], tmp_path: Path) -> None:
    broker, client = trading
    other = KillSwitch(tmp_path / "journal")
    client.kill("first")
    other.rearm()
    assert client.killed == ""
    path = client.kill_file
    assert path is not None
    for throw in (lambda: client.kill("second"), path.touch):
        throw()
        assert client.killed
        path.unlink()
        check_killed(client, broker, ".")
        client.rearm()


def test_a_switch_that_can_not_be_written_holds_all_the_same(
    trading: tuple[Broker, jvq.TradeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, client = trading

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jvq_fast.trade.kill.replace_private", full)
        client.kill("disk is full")
        check_killed(client, broker, "disk is full")
    check_killed(client, broker, "disk is full")


@pytest.mark.parametrize("how", ["call", "file", "signal", "another process"])
def test_under_load_nothing_new_reaches_the_broker_after_the_throw(how: str, tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        standing = client.buy("000001", "10", 100)
        codes = [f"6{number:05d}" for number in range(40)]
        futures: list[Future[jvq.Order]] = []
        lock = threading.Lock()
        stop = threading.Event()
        thrown = threading.Event()
        late: list[Future[jvq.Order]] = []

        def submit(codes: list[str]) -> None:
            while not stop.is_set():
                for code in codes:
                    after = thrown.is_set()
                    future = client.submit_buy(code, "10", 100)
                    with lock:
                        (late if after else futures).append(future)
                    time.sleep(0.005)

        path = client.kill_file
        assert path is not None
        before = signal.getsignal(signal.SIGUSR2)
        client.kill_on(signal.SIGUSR2)
        ways: dict[str, Callable[[], object]] = {
            "call": lambda: client.kill("load"), "file": path.touch,
            "signal": lambda: signal.raise_signal(signal.SIGUSR2),
            "another process": lambda: KillSwitch(tmp_path / "journal").throw("load"),
        }  # fmt: skip
        threads = [threading.Thread(target=submit, args=(codes[n::4],), daemon=True) for n in range(4)]
        try:
            for thread in threads:
                thread.start()
            wait(lambda: len(broker.calls("buy")) > 10)
            ways[how]()
            thrown.set()
            wait(lambda: len(late) > 10)
        finally:
            stop.set()
            signal.signal(signal.SIGUSR2, before)
            for thread in threads:
                thread.join(WAIT)
        outcomes = [future.exception(WAIT) for future in futures]
        refusals = [future.exception(WAIT) for future in late]
        assert all(isinstance(error, jvq.KilledError) for error in refusals)
        sent = outcomes.count(None)
        assert sent >= 10
        # Two hundred a second is the gate's own ceiling; whatever else did not go was killed.
        assert all(error is None or isinstance(error, jvq.KilledError | jvq.RiskError) for error in outcomes)
        assert len(broker.calls("buy")) == sent + 1
        client.cancel(standing)
        assert len(broker.calls("cancel")) == 1
        assert client.unknown == ()


def test_orders_that_wait_for_a_login_do_not_go_after_the_throw(tmp_path: Path) -> None:
    release = threading.Event()

    def before(call: str, query: dict[str, str]) -> None:
        if call == "login":
            assert release.wait(WAIT)

    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW, login_timeout=WAIT) as client:
        broker.before = before
        futures = [client.submit_buy("600519", f"10.0{number}", 100) for number in range(5)]
        wait(lambda: len(broker.calls("login")) == 1)
        client.kill("while logging in")
        release.set()
        for future in futures:
            with pytest.raises(jvq.KilledError):
                future.result(WAIT)
        assert broker.calls("buy") == []
        assert client.intents == ()


def test_an_order_that_is_connecting_does_not_go_after_the_throw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the journal already, and connected: it is asked once more before its first byte."""
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        order = client.buy("600519", "10", 100)
        real = jvq.trade.wire._Attempt.check_reach  # type: ignore[attr-defined]
        connected, release = threading.Semaphore(0), threading.Event()

        def check(attempt: Any, sock: Any) -> None:
            real(attempt, sock)
            connected.release()
            assert release.wait(WAIT)

        monkeypatch.setattr("jvq_fast.trade.wire._Attempt.check_reach", check)
        futures = [client.submit_buy("600519", f"10.0{number}", 100) for number in range(1, 5)]
        for _ in futures:
            assert connected.acquire(timeout=WAIT)
        client.kill("while connecting")
        release.set()
        for future in futures:
            with pytest.raises(jvq.KilledError, match="was not sent"):
                future.result(WAIT)
        assert len(broker.calls("buy")) == 1
        assert [intent.outcome for intent in client.intents[1:]] == [jvq.Outcome.NOT_SENT] * 4
        client.cancel(order)
        assert len(broker.calls("cancel")) == 1


def test_the_switch_does_not_touch_what_is_in_flight(tmp_path: Path) -> None:
    """What has left is found out about, killed or not."""
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, timeout=0.5) as client:
        client.orders()
        broker.answers["buy"] = hang
        future = client.submit_buy("600519", "10", 100)
        wait(lambda: len(broker.calls("buy")) == 1)
        client.kill("now")
        with pytest.raises(jvq.OrderUnknown):
            future.result(WAIT)
        broker.add("buy", broker.calls("buy")[0])
        wait(lambda: client.unknown == ())
        assert client.intents[0].outcome is jvq.Outcome.ACCEPTED
        assert len(broker.calls("buy")) == 1
