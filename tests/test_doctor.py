"""`jvq-fast doctor`: judges rightly whatever the server does, says what failed and why, ends, and keeps the token."""

import asyncio
import contextlib
import datetime as dt
import json
import os
import re
import resource
import signal
import socket
import stat
import threading
import time
import zlib
from urllib.parse import quote, unquote

import pytest

import jvq_fast as jvq
from commands import Command
from jvq_fast.allocation import parse_server, service_url
from jvq_fast.capture import MESSAGE, Reader
from jvq_fast.cli import main
from jvq_fast.cli.doctor import SUBSCRIPTIONS
from jvq_fast.doctor import blocks, evidence, report
from jvq_fast.doctor import walk as walking
from jvq_fast.doctor.evidence import Message, look
from jvq_fast.doctor.hours import Hours, hours
from jvq_fast.doctor.statements import STATEMENTS, verdicts
from jvq_fast.doctor.walk import Plan, walk
from jvq_fast.redact import Secret
from jvq_fast.sim.deflate import deflate as deflate_as
from simulator import TOKEN, Peer, Simulator
from ws_script import BINARY, CLOSE, PING, PONG, TEXT, ScriptServer, binary, deflate, frame, reply, trade

WAIT = 30.0
SPEED = ("--speed", "15", "--seed", "5")
CHINA = dt.timezone(dt.timedelta(hours=8))
CANARY = "c0ffee5ca1ab1e0ddba11feedfacef00"
FILES = ("doctor.txt", "doctor.json", "doctor.jvq")


@pytest.fixture(autouse=True)
def _no_token_around(monkeypatch):
    monkeypatch.delenv("JVQ_FAST_TOKEN", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(walking, "_GREETING", 0.1)


def examine(sim=None, *, is_cancelled=lambda: False, say=lambda line: None, **settings):
    """Walk against a simulator, or whatever `service` and `server` name; it must not raise, nor take long."""
    settings = {"clock": "always", "seconds": 0.6, "reply_timeout": 0.4, "subscriptions": SUBSCRIPTIONS} | settings
    if sim is not None:
        settings |= {"service": sim.http, "trading_day": sim.trading_day}
    settings["service"] = service_url(settings.get("service", "http://127.0.0.1:9"))
    token = Secret.read(settings.pop("token", TOKEN))
    begin = time.monotonic()
    walked = asyncio.run(walk(Plan(token=token, **settings), say, is_cancelled))
    assert time.monotonic() - begin < WAIT
    report.make(walked)
    return walked


def judged(walked):
    return {each.statement.id: each.judgement for each in verdicts(walked)}


def evidence_of(walked, name):
    return next(each.evidence for each in verdicts(walked) if each.statement.id == name)


def step(walked, name):
    return next(each for each in walked.steps if each.name == name)


def outcomes(walked):
    return {each.name: each.outcome for each in walked.steps}


# --- judging


EXPECTED = dict.fromkeys((each.id for each in STATEMENTS), "confirmed") | dict.fromkeys(
    (
        "allocation-refusal", "allocation-interval", "bad-token", "limit-text", "no-server-pings", "stale-first-push",
        "repeats",
    ),
    "open",
) | {"lv2-cancellations": "refuted"}  # fmt: skip
UNREADABLE = ["decoding"]
# Switches, what they change in the judgements, and the steps that fail with them.
SWITCHES = [
    ([], {}, []),
    (["--lv1-order", "volume_first"], {"lv1-amount-first": "refuted"}, []),
    (["--lv10-order", "volume_first"], {"lv10-prices-first": "refuted"}, []),
    (["--lv2-second", "id_first"], {"lv2-time-first-later": "refuted"}, UNREADABLE),
    (["--empty-levels", "bare"], {}, []),
    (["--empty-levels", "blank"], {"empty-levels": "refuted"}, []),
    (["--empty-levels", "no_price"], {"empty-levels": "refuted"}, []),
    (["--index-rows", "short"], {"index-rows": "refuted", "empty-levels": "open"}, UNREADABLE),
    (["--index-rows", "none"], {"index-rows": "open", "empty-levels": "open"}, []),
    (["--volumes", "decimals"], {"lv2-whole-volumes": "refuted"}, []),
    (["--volume-unit", "lots"], {"lv1-volume-unit": "refuted"}, []),
    (["--volume-unit", "lots", "--lv1-order", "volume_first"],
     {"lv1-volume-unit": "refuted", "lv1-amount-first": "refuted"}, []),
    (["--ids", "text"], {"lv2-decimal-ids": "refuted"}, []),
    (["--time-digits", "0"], {"lv2-milliseconds": "refuted"}, []),
    (["--time-digits", "6"], {"lv2-milliseconds": "refuted"}, []),
    (["--cancels", "0.3"], {"lv2-cancellations": "confirmed"}, []),
    (["--trailing-newline"], {"no-last-newline": "refuted"}, []),
    (["--deflate", "stored"], {"several-block-kinds": "open"}, []),
    (["--deflate", "fixed"], {"several-block-kinds": "open"}, []),
    (["--deflate", "dynamic"], {"several-block-kinds": "open"}, []),
    (["--deflate", "mixed"], {}, []),
    (["--fragments", "3"], {"one-frame": "refuted"}, []),
    (["--ping-every", "0.2"], {"no-server-pings": "refuted"}, []),
    (["--no-pong"], {"answers-ping": "refuted"}, []),
    (["--ack", "text"], {"success-text": "refuted"}, []),
    (["--ack", "json"], {"success-text": "refuted"}, []),
    (["--ack", "none"], {"success-text": "refuted"}, []),
    (["--ack-text", "好"], {}, []),
    (["--allocation-code", "number"], {"allocation-grant": "refuted"}, []),
    (["--no-allocation-scheme"], {"allocation-address": "refuted"}, []),
    (["--allocation-path", "feed"], {"allocation-address": "refuted"}, []),
    (["--allocation-slash"], {"allocation-address": "refuted"}, []),
    (["--limit-up", "600519"], {}, []),
]  # fmt: skip


def check_judgements(switches, changes, failed):
    with Simulator(*SPEED, *switches) as sim:
        walked = examine(sim)
    found = {name: judgement for name, judgement in judged(walked).items() if judgement != (EXPECTED | changes)[name]}
    assert found == {}, [f"{name}: {evidence_of(walked, name)}" for name in found]
    assert [name for name, outcome in outcomes(walked).items() if outcome == "failed"] == failed
    assert walked.ok == (not failed)
    assert walked.evidence.passed_over == 0
    return walked


def test_each_switch_is_judged_by_itself(share):
    for switches, changes, failed in share(SWITCHES, 3):
        check_judgements(switches, changes, failed)


@pytest.mark.parametrize("number", range(3))
def test_many_switches_at_once_are_judged_as_well(number):
    together = [
        (
            "--lv1-order volume_first --lv10-order volume_first --empty-levels blank --ids text --time-digits 0 "
            "--volumes decimals --trailing-newline --deflate mixed --fragments 3 --ping-every 0.2 --ack text",
            "lv1-amount-first lv10-prices-first empty-levels lv2-decimal-ids lv2-milliseconds lv2-whole-volumes "
            "no-last-newline one-frame no-server-pings success-text",
            {},
            [],
        ),
        (
            "--volume-unit lots --cancels 0.3 --ack json --time-digits 9 --no-pong --allocation-code number "
            "--no-allocation-scheme --lv2-second id_first",
            "lv1-volume-unit success-text lv2-milliseconds answers-ping allocation-grant allocation-address "
            "lv2-time-first-later",
            {"lv2-cancellations": "confirmed"},
            UNREADABLE,
        ),
        (
            "--index-rows short --deflate stored --ack none --allocation-path feed --allocation-slash",
            "index-rows success-text allocation-address",
            {"several-block-kinds": "open", "empty-levels": "open"},
            UNREADABLE,
        ),
    ]
    switches, refuted, changes, failed = together[number]
    check_judgements(switches.split(), dict.fromkeys(refuted.split(), "refuted") | changes, failed)


def test_what_was_lost_before_the_order_was_known_is_remarked_upon():
    with Simulator(*SPEED, "--lv10-order", "volume_first") as sim:
        decoding = step(examine(sim, subscriptions=("lv10_600519",)), "decoding")
    assert decoding.outcome == "remark"
    assert 'lv10_order="volume_first"' in decoding.todo


def test_statements_have_stable_distinct_names():
    names = [each.id for each in STATEMENTS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assumed = {each.id for each in STATEMENTS if each.basis == "assumed"}
    assert assumed == {
        "allocation-refusal", "bad-token", "success-text", "lv1-volume-unit", "empty-levels", "index-rows",
        "lv2-cancellations",
    }  # fmt: skip


def test_what_is_detected_is_what_was_sent():
    with Simulator(*SPEED, "--fragments", "2", "--empty-levels", "bare", "--trailing-newline") as sim:
        walked = examine(sim)
        sent = sim.stats()["connections"][0]
    detected = report.make(walked).facts["detected"]
    # What was sent after the connection began to close does not count.
    assert sent["messages"] * 0.9 <= detected["messages"] <= sent["messages"]
    assert detected["messages"] == detected["messages_looked_at"] == detected["fragmented_messages"]
    assert detected["most_frames_per_message"] == 2
    assert detected["endings"] == {"newline": detected["messages"]}
    assert detected["names"]["600519"] == "贵州茅台"
    assert detected["lv1_order_source"] == detected["lv10_order_source"] == "detected"
    sizes = detected["bytes_compressed"]
    assert 0 < sizes["min"] <= sizes["median"] <= sizes["p99"] <= sizes["max"] < detected["bytes_inflated"]["max"]
    records = sum(count for level in detected["fields"].values() for count in level.values())
    assert records + detected["index_rows"]["empty book"] == walked.stats["records"] > 100
    assert set(detected["first_pushes"]) == set(SUBSCRIPTIONS)
    assert detected["ping_milliseconds"] > 0


# --- refusals


@pytest.mark.parametrize("switch", [[], ["--allocation-message", "msg"], ["--allocation-code", "number"]])
def test_a_refused_allocation_ends_the_walk_and_is_judged(switch):
    with Simulator("--tokens", "f" * 32, *switch) as sim:
        walked = examine(sim)
    assert outcomes(walked) | {"machine": "", "picows": "", "receive buffer": ""} == {
        "machine": "", "picows": "", "receive buffer": "", "allocation": "failed", "connection": "skipped",
        "commands": "skipped", "ping": "skipped", "data": "skipped",
    }  # fmt: skip
    assert "token无效" in step(walked, "allocation").found
    assert "balance" in step(walked, "allocation").todo
    assert judged(walked)["allocation-refusal"] == "confirmed"
    assert ("msg" if "msg" in switch else "message") in evidence_of(walked, "allocation-refusal").split()
    assert {name for name, judgement in judged(walked).items() if judgement != "open"} == {"allocation-refusal"}


@pytest.mark.parametrize(("how", "where"), [("text", "server"), ("http", "connection")])
def test_a_bad_token_at_the_server_is_judged(how, where):
    with Simulator("--tokens", "f" * 32, "--no-allocation-check", "--bad-token", how) as sim:
        walked = examine(sim)
    assert outcomes(walked)[where] == "failed"
    assert "token" in step(walked, where).todo
    assert judged(walked)["bad-token"] == "confirmed"
    assert ("401" if how == "http" else "-1#token无效") in evidence_of(walked, "bad-token")
    assert not walked.ok


def test_a_connection_too_many_is_judged():
    with Simulator(*SPEED, "--limit", "1") as sim, Peer(sim.url()):
        walked = examine(sim)
    assert judged(walked)["limit-text"] == "confirmed"
    assert judged(walked)["bad-token"] == "open"
    assert "at once" in evidence_of(walked, "limit-text")
    assert "end another connection" in step(walked, "server").todo
    assert outcomes(walked)["data"] == "skipped"


def test_being_evicted_is_judged():
    with Simulator(*SPEED, "--limit", "1", "--over-limit", "evict") as sim:

        def intrude():
            sim.wait(lambda stats: any(each["messages"] > 20 for each in stats["connections"]))
            with Peer(sim.url()):
                sim.wait(lambda stats: not stats["connections"][0]["open"])

        intruder = threading.Thread(target=intrude)
        intruder.start()
        walked = examine(sim, seconds=WAIT)
        intruder.join(WAIT)
    assert judged(walked)["limit-text"] == "confirmed"
    assert "later" in evidence_of(walked, "limit-text")
    assert outcomes(walked)["server"] == "failed"
    assert outcomes(walked)["data"] == "ok"


@pytest.mark.parametrize(("interval", "judgement"), [("30", "confirmed"), ("0", "refuted")])
def test_a_second_allocation_is_asked_for_only_when_wished(interval, judgement):
    with Simulator(*SPEED, "--allocation-interval", interval) as sim:
        walked = examine(sim, second_allocation=True, subscriptions=("lv1_600519",))
        assert judged(walked)["allocation-interval"] == judgement
        assert walked.ok
    assert len(walked.allocations) == 2


def test_without_the_wish_there_is_one_allocation_and_one_connection():
    with Simulator(*SPEED, "--allocation-interval", "30", "--limit", "1") as sim:
        walked = examine(sim, subscriptions=("lv1_600519",))
        assert len(sim.stats()["connections"]) == 1
    assert len(walked.allocations) == 1
    assert walked.ok


# --- servers that fail


def hang(peer):
    peer.read_head()
    peer.until_closed()


def silent(peer):
    peer.accept()
    peer.until_closed()


def cut_after_command(peer):
    peer.accept()
    peer.text()
    peer.send(binary("lv1_600519=" + ",".join(["10:00:00", "x", *["1.00"] * 24])))
    peer.reset()


def closes(peer):
    peer.accept()
    peer.text()
    peer.send(frame(CLOSE, (1001).to_bytes(2, "big") + b"maintenance"))
    peer.until_closed()


QUICK = {
    "seconds": 0.3, "reply_timeout": 0.2, "allocation_timeout": 0.5, "connect_timeout": 1, "handshake_timeout": 0.5,
}  # fmt: skip


def fixed(script):
    @contextlib.contextmanager
    def make():
        with ScriptServer(script) as server:
            yield {"server": parse_server(server.ws)}

    return make


def allocating(script):
    @contextlib.contextmanager
    def make():
        with ScriptServer(script) as server:
            yield {"service": server.http}

    return make


@contextlib.contextmanager
def nobody():
    yield {"service": "http://127.0.0.1:9"}


@contextlib.contextmanager
def dead():
    yield {"server": parse_server("ws://127.0.0.1:9")}


FAILING = {
    "no allocation service": (nobody, "allocation", "refused"),
    "allocation that hangs": (allocating(hang), "allocation", "did not reply"),
    "allocation that is a web page": (allocating(reply(200, b"<html>")), "allocation", "not a JSON object"),
    "allocation out of order": (allocating(reply(503, b"")), "allocation", "503"),
    "allocation of nonsense": (allocating(reply(200, b'{"code":"0","server":"a b"}')), "allocation", "not a server"),
    "dead server": (dead, "connection", "refused"),
    "handshake that hangs": (fixed(hang), "connection", "in time"),
    "no WebSocket": (fixed(reply(404, b"")), "connection", "404"),
    "silent server": (fixed(silent), "data", "no data within"),
    "reset": (fixed(cut_after_command), "server", "lost"),
    "server that closes": (fixed(closes), "server", "1001 maintenance"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failure_is_named_and_explained_and_the_walk_ends(case):
    make, failed, said = FAILING[case]
    with make() as where:
        walked = examine(**{**QUICK, **where})
    first = next(each for each in walked.steps if each.outcome == "failed")
    assert (first.name, walked.ok) == (failed, False)
    assert said in first.found
    assert first.means
    assert first.todo
    names = {each.name for each in walked.steps}
    assert {"machine", "allocation", "connection", "data"} <= names
    text = report.make(walked).text
    assert f"FAILED   {failed}:" in text
    assert text.rstrip().splitlines()[-1].startswith("NOT WELL: ")


def test_an_unknown_host_is_named():
    walked = examine(server=parse_server("ws://no-such-host.invalid:1"), **QUICK)
    assert outcomes(walked)["connection"] == "failed"


def test_silence_outside_trading_hours_is_no_failure(monkeypatch):
    monkeypatch.setattr(walking, "hours", lambda now, real_time: Hours(False, "outside trading hours: a test"))
    with ScriptServer(silent) as server:
        walked = examine(server=parse_server(server.ws), **QUICK, clock="exchange")
    assert outcomes(walked)["data"] == outcomes(walked)["decoding"] == "open"
    assert walked.ok
    assert "outside trading hours" in report.make(walked).text
    assert {judged(walked)[name] for name in ("empty-levels", "lv1-fields", "lv2-once", "raw-deflate")} == {"open"}


def test_what_can_not_be_read_is_shown():
    def script(peer):
        peer.accept()
        peer.text()
        peer.send(binary("lv1_600519=10:00:00,三\x1b[2J,1\n"), frame(BINARY, b"\xff\xff\xff"))
        peer.send(frame(BINARY, zlib.compress(b"lv2_600519=10:00:00,1,1.00,1")))
        peer.until_closed()

    with ScriptServer(script) as server:
        walked = examine(server=parse_server(server.ws), **QUICK)
    decoding = step(walked, "decoding")
    assert decoding.outcome == "failed"
    assert "1 record and 2 messages" in decoding.found
    assert "三" in decoding.found
    assert judged(walked)["raw-deflate"] == "refuted"
    assert walked.evidence.containers == {"raw DEFLATE": 1, "corrupt": 1, "zlib": 1}
    text = report.make(walked).text
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_a_flood_is_looked_at_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(evidence, "MAX_LOOKED_AT", 100_000)
    row = b"lv2_600519=" + b"|".join([b"10:00:00.000,1,1.00,1"] * 1000)
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(row) + packer.flush()
    found = look([Message(0, True, payload)] * 100, 0, real_time=False)
    assert found.looked_at < 10
    assert found.looked_at + found.passed_over == 100


def test_the_report_says_of_how_many_messages_the_blocks_were_counted(monkeypatch):
    monkeypatch.setattr(evidence, "MAX_WALKED", 20_000)
    with Simulator(*SPEED) as sim:
        walked = examine(sim)
    made = report.make(walked)
    detected = made.facts["detected"]
    counted = detected["messages_whose_blocks_were_counted"]
    assert 0 < counted < detected["messages_looked_at"]
    assert counted <= sum(detected["deflate_blocks"].values())
    assert f"  messages whose blocks were counted: {counted:,}" in made.text.splitlines()


def test_a_bomb_is_not_inflated():
    packer = zlib.compressobj(9, wbits=-15)
    payload = packer.compress(bytes(9 << 20)) + packer.flush()
    found = look([Message(0, True, payload)], 0, real_time=False)
    assert found.containers == {"too large": 1}
    assert found.secretive == {0}


@pytest.mark.parametrize("after", [0.0, 0.3, 1.0])
def test_it_stops_when_it_is_told_to_and_what_had_not_come_is_no_failure(after):
    with ScriptServer(silent) as server:
        end = time.monotonic() + after
        walked = examine(
            server=parse_server(server.ws), seconds=3600, reply_timeout=0.1, is_cancelled=lambda: time.monotonic() > end
        )
    assert walked.ok
    assert outcomes(walked)["data"] in ("open", "skipped")
    assert walked.listened < WAIT


# --- connections that fall silent


LONG = {"seconds": 1.6, "close_timeout": 0.2}


@pytest.fixture
def _soon(monkeypatch):
    monkeypatch.setattr(walking, "_LEAST_SILENCE", 0.8)


def check_nothing_is_held_against_the_server(walked):
    found = judged(walked)
    assert {name: each for name, each in found.items() if each not in (EXPECTED[name], "open")} == {}


def check_died(walked):
    server = step(walked, "server")
    assert (server.outcome, walked.ok) == ("failed", False)
    assert re.search(r"nothing came for the last [\d.]+ s of [\d.]+ s, nor an answer to ", server.found)
    assert "died without a word" in server.means
    data = step(walked, "data")
    assert data.outcome in ("remark", "open")
    assert "the last of them" in data.found
    assert "consequence" in data.means
    assert report.make(walked).text.rstrip().endswith("NOT WELL: server")
    check_nothing_is_held_against_the_server(walked)
    detected = report.make(walked).facts["detected"]
    assert 0 < detected["last_record_seconds"] <= detected["last_frame_seconds"] < detected["open_seconds"] - 1


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("fault", ["half_open:after=30", "stall:after=30,answers=false", "cut:after=30,how=silent"])
def test_a_connection_that_dies_without_a_word_is_told_and_what_followed_is_its_consequence(fault):
    with Simulator(*SPEED, "--fault", fault) as sim:
        walked = examine(sim, **LONG)
    check_died(walked)
    commands = step(walked, "commands")
    unanswered = sum(not each.replies for each in walked.commands)
    assert 0 < unanswered < len(walked.commands)
    assert commands.outcome == step(walked, "ping").outcome == "open"
    assert "nothing came any more" in commands.found
    assert "consequence" in commands.means
    assert "consequence" in step(walked, "ping").means
    assert judged(walked)["answers-ping"] == "open"


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("trades", [True, False])
def test_a_connection_that_dies_while_it_is_listened_to_is_asked_and_told(monkeypatch, trades):
    monkeypatch.setattr(walking, "hours", lambda now, real_time: Hours(trades, "a test"))
    with Simulator(*SPEED) as sim:
        walked = examine(sim, **LONG, say=lambda line: line.startswith("listening") and sim.fault("half_open"))
    check_died(walked)
    assert outcomes(walked)["commands"] == outcomes(walked)["ping"] == "ok"
    assert [each.text for each in walked.commands if not each.replies] == ["list"]
    assert judged(walked)["answers-ping"] == judged(walked)["list-reply"] == "confirmed"


def stalled(**settings):
    with Simulator(*SPEED, "--fault", "stall:after=40") as sim:
        return examine(sim, **{**LONG, **settings})


@pytest.mark.usefixtures("_soon")
def test_a_server_that_answers_and_sends_no_more_data_is_told():
    walked = stalled()
    data = step(walked, "data")
    assert (data.outcome, walked.ok) == ("failed", False)
    assert re.search(r"the last of them [\d.]+ s before the end of [\d.]+ s", data.found)
    assert "answers, and sends no more data" in data.means
    assert outcomes(walked)["commands"] == outcomes(walked)["ping"] == "ok"
    assert "server" not in outcomes(walked)
    check_nothing_is_held_against_the_server(walked)
    assert judged(walked)["answers-ping"] == "confirmed"


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("trades", [(False, False), (True, False), (False, True)])
def test_silence_while_the_market_does_not_trade_all_the_time_is_only_remarked_upon(monkeypatch, trades):
    state = iter(trades)
    monkeypatch.setattr(walking, "hours", lambda now, real_time: Hours(next(state), "a test"))
    walked = stalled()
    assert (outcomes(walked)["data"], walked.ok) == ("remark", True)
    assert "does not trade" in step(walked, "data").means


QUIET = binary("lv1_600519=" + ",".join(["10:00:00", "x", *["1.00"] * 24]))
BUSY = b"".join(binary(trade(number)) for number in range(10))


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize(
    ("first", "names", "answers", "outcome"),
    [
        (QUIET, ("lv1_600519",), True, "remark"),
        (QUIET, ("lv1_600519",), False, "remark"),
        (BUSY, ("lv2_600519",), True, "remark"),  # trades may pause
        (BUSY + QUIET, ("lv1_600519", "lv2_600519"), True, "failed"),
        (BUSY + QUIET, ("lv1_600519", "lv2_600519"), False, "failed"),
    ],
    ids=["quiet", "quiet and mute", "trades", "busy", "busy and mute"],
)
def test_silence_is_a_fault_only_where_data_was_flowing(first, names, answers, outcome):
    def script(peer):
        peer.accept()
        peer.text()
        peer.send(first, first, first, *[frame(TEXT, b"0#ok")] * answers)
        with contextlib.suppress(ConnectionError):
            while True:
                kind, payload = peer.frame()
                if answers and kind in (TEXT, PING):
                    peer.send(frame(TEXT, b"0#" + ",".join(names).encode()) if kind == TEXT else frame(PONG, payload))

    with ScriptServer(script) as server:
        walked = examine(server=parse_server(server.ws), **LONG, subscriptions=names)
    assert (outcomes(walked)["data"], walked.ok) == (outcome, outcome == "remark")
    assert ("the server answers" in step(walked, "data").means) == answers
    # A server that was never heard to answer may have been dead from then on.
    assert {judged(walked)[name] for name in ("answers-ping", "success-text", "list-reply")} <= {"confirmed", "open"}


def test_what_a_connection_that_ended_left_unanswered_is_not_held_against_the_server():
    with ScriptServer(cut_after_command) as server:
        walked = examine(server=parse_server(server.ws), **QUICK)
    assert outcomes(walked)["commands"] == "open"
    assert "consequence" in step(walked, "commands").means
    assert {judged(walked)[name] for name in ("answers-ping", "success-text", "list-reply")} == {"open"}


def test_a_command_that_alone_is_not_answered_is_named():
    with Simulator(*SPEED, "--ack", "none") as sim:
        walked = examine(sim)
    commands = step(walked, "commands")
    assert commands.outcome == "remark"
    assert "4 of 7 commands answered, not add=, del=, all=" in commands.found


# --- the token


def spelled(token):
    percent = "".join(f"%{ord(each):02X}" for each in token)
    return [
        token,
        token.upper(),
        percent,
        quote(percent),
        "".join(f"\\u{ord(each):04x}" for each in token),
        f"a{token}b{token}",
    ]


def holds_token(text):
    plain = re.sub(r"\\+u00([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
    for _ in range(4):
        plain = unquote(plain)
    # A good part of it is as bad as all.
    return any(CANARY[at : at + 12] in plain.lower() for at in range(0, 20, 4))


def echoes():
    return " ".join(spelled(CANARY))


def echoing(peer):
    """Repeats the token in every place where a server can put something."""
    row = ",".join(["10:00:00", echoes(), *["1.00"] * 24])
    peer.accept()
    peer.send(frame(TEXT, f"0#{echoes()}".encode()))
    with contextlib.suppress(ConnectionError):
        command = peer.text()
        peer.send(
            binary(f"lv1_600519={row}"),
            binary(f"lv1_{CANARY}={row}"),
            binary(f"{echoes()}\nlv2_600519={CANARY},{CANARY},{CANARY},{CANARY}"),
            binary("lv2_600519=" + "x" * 300 + CANARY * 40),
            frame(BINARY, echoes().encode()),
            frame(BINARY, deflate("lv2_600519=10:00:00.000,1,1.00,100") + deflate(echoes())),
            frame(BINARY, deflate(f"lv2_600519={echoes()}")[:-4]),
            frame(BINARY, zlib.compress(echoes().encode())),
            frame(BINARY, deflate("lv2_600519=10:00:00.000,7,1.00,100")),
            frame(PING, CANARY.encode()),
            frame(TEXT, echoes().encode()),
            frame(TEXT, ("y" * 90 + CANARY).encode()),
            frame(TEXT, ("y" * (report._SHOWN - 20) + CANARY).encode()),
        )
        while command:
            peer.send(frame(TEXT, f"{echoes()} {command}".encode()))
            if command == "his":
                peer.send(frame(CLOSE, (1001).to_bytes(2, "big") + CANARY.encode()))
                break
            kind, payload = peer.frame()
            while kind != TEXT:  # the answer to the ping
                kind, payload = peer.frame()
            command = payload.decode()
        peer.until_closed()


def refusing(peer):
    peer.accept()
    peer.send(frame(TEXT, f"-1#{echoes()}".encode()), frame(CLOSE, (1008).to_bytes(2, "big") + CANARY.encode()))
    peer.until_closed()


def no_handshake(peer):
    peer.read_head()
    peer.send(f"HTTP/1.1 403 {CANARY}\r\nServer: {CANARY}\r\nContent-Length: 0\r\n\r\n".encode())


def no_http(peer):
    peer.read_head()
    peer.send(f"{echoes()}\r\n\r\n".encode())


def grant(body):
    headers = (
        f"Server: {echoes()}".encode(),
        f"Location: http://h/?token={quote(CANARY)}".encode(),
        f"X-{CANARY}: {CANARY}".encode(),
    )
    return reply(200, body.encode(), *headers)


@pytest.mark.parametrize("script", [echoing, refusing, no_handshake, no_http])
@pytest.mark.parametrize("with_json", [False, True])
def test_the_token_is_nowhere_whoever_repeats_it(script, with_json, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JVQ_FAST_TOKEN", CANARY)
    with ScriptServer(script) as server:
        body = json.dumps({"code": "0", "server": f"{server.ws}/{CANARY}?token={CANARY}", "message": echoes()})
        with ScriptServer(grant(body)) as service:
            status = main([
                "doctor", "--allocation", service.http, "--seconds", "0.3", "--output", str(tmp_path / "out"),
                "--second-allocation", *(["--json"] if with_json else []),
            ])  # fmt: skip
    assert status == 1
    said = capfd.readouterr()
    check_no_token(tmp_path / "out", said.out, said.err)
    if script is echoing:
        facts = json.loads((tmp_path / "out" / "doctor.json").read_text())
        assert facts["counters"]["messages"] == 9  # all of it was there to be found
        assert len(facts["texts"]) >= 7
        assert "***" in said.out
        kept = [entry for entry in entries(tmp_path / "out" / "doctor.jvq") if entry.kind == MESSAGE]
        assert [zlib.decompress(entry.payload, -15) for entry in kept] == [b"lv2_600519=10:00:00.000,7,1.00,100"]
        assert "8 messages left out of the capture" in said.out + said.err


@pytest.mark.parametrize(
    "body", [json.dumps({"code": 7, "message": " ".join(spelled(CANARY))}), " ".join(spelled(CANARY)), CANARY * 100]
)
def test_the_token_is_nowhere_in_a_refusal(body, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JVQ_FAST_TOKEN", CANARY)
    with ScriptServer(grant(body)) as service:
        assert main(["doctor", "--allocation", service.http, "--output", str(tmp_path / "out")]) == 1
    said = capfd.readouterr()
    check_no_token(tmp_path / "out", said.out, said.err)
    assert "***" in said.out


def entries(path):
    with path.open("rb") as file:
        return list(Reader(file, str(path)))


def check_no_token(folder, *texts):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(files) == {"doctor.txt", "doctor.json", "doctor.jvq"}
    for text in (*texts, *(content.decode("utf-8", "replace") for content in files.values())):
        assert not holds_token(text)
    json.loads(files["doctor.json"])
    for entry in entries(folder / "doctor.jvq"):
        with contextlib.suppress(zlib.error):
            stream = zlib.decompressobj(-15)
            inflated = stream.decompress(entry.payload)
            assert not holds_token(inflated.decode("utf-8", "replace"))


def test_a_walk_shows_no_token_of_its_plan():
    walked = examine(**QUICK, token=CANARY)
    assert not holds_token(repr(walked))


# --- hours


@pytest.mark.parametrize(
    ("at", "expected", "said"),
    [
        ("2026-11-23 10:00", True, "continuous"),
        ("2026-11-23 14:59", False, "on 2026-11-24 at 09:30"),
        ("2026-11-23 12:00", False, "today at 13:00"),
        ("2026-11-23 09:20", False, "today at 09:30"),
        ("2026-11-23 20:00", False, "on 2026-11-24 at 09:30"),
        ("2026-11-21 10:00", False, "on 2026-11-23 at 09:30"),
        ("2026-10-01 10:00", False, "on 2026-10-08 at 09:30"),
        ("2031-11-24 10:00", False, "holidays of this year are not known"),
    ],
)
def test_the_hours_are_those_of_the_exchanges(at, expected, said):
    moment = dt.datetime.fromisoformat(at).replace(tzinfo=CHINA)
    found = hours(int(moment.timestamp() * 1e9), real_time=True)
    assert found.data_expected is expected
    assert said in found.text
    assert hours(int(moment.timestamp() * 1e9), real_time=False).data_expected


def test_ages_are_reckoned_in_shanghai_and_across_midnight():
    def least(recv, *times):
        rows = "\n".join(f"lv2_600519={each},{number},1.00,100" for number, each in enumerate(times))
        return look([Message(recv, True, deflate(rows))], 0, real_time=True).least_age

    noon = int(dt.datetime(2026, 11, 23, 10, 0, 0, 500_000, CHINA).timestamp() * 1e9)
    assert least(noon, "10:00:00.300", "09:59:59.000") == pytest.approx(0.2)
    assert least(noon, "10:00:01.000") == pytest.approx(-0.5)
    assert least(noon, "08:00:00.000") is None
    midnight = int(dt.datetime(2026, 11, 24, 0, 0, 1, 0, CHINA).timestamp() * 1e9)
    assert least(midnight, "23:59:59.500") == pytest.approx(1.5)


def test_a_stale_first_push_is_seen(monkeypatch):
    monkeypatch.setattr(walking, "hours", lambda now, real_time: Hours(True, "a test"))
    for seconds, judgement in ((3600, "confirmed"), (2, "refuted")):

        def script(peer, seconds=seconds):
            now = dt.datetime.now(CHINA) - dt.timedelta(seconds=seconds)
            peer.accept()
            peer.text()
            peer.send(binary("lv1_600519=" + ",".join([f"{now:%H:%M:%S}", "x", *["1.00"] * 24])))
            peer.until_closed()

        with ScriptServer(script) as server:
            walked = examine(server=parse_server(server.ws), **QUICK, clock="exchange", subscriptions=("lv1_600519",))
        assert judged(walked)["stale-first-push"] == judgement


def passing(seconds, gap, trading=1):
    """Records that are all so old, at noon; the second `gap` seconds later and stamped `trading` seconds later."""
    at = dt.datetime(2026, 11, 23, 12, 0, 0, 0, CHINA)
    messages = []
    for step in (0, 1):
        stamp = at + dt.timedelta(seconds=step * trading - seconds)
        recv = int((at + dt.timedelta(seconds=step * gap)).timestamp() * 1e9)
        messages.append(Message(recv, True, deflate(f"lv2_600519={stamp:%H:%M:%S}.000,{step},1.00,100")))
    return look(messages, 0, real_time=True).clocks_apart


def test_clocks_are_apart_where_all_that_goes_on_is_old_or_new():
    assert passing(5313, 2) == pytest.approx(5313)
    assert passing(-5313, 2, 2) == pytest.approx(-5313)
    assert passing(70, 2) == pytest.approx(70)
    assert passing(50, 2) is None
    assert passing(-50, 2) is None
    # One push of several records, and a code that does not trade and is pushed once more.
    assert passing(5313, 0) is None
    assert passing(5313, 2, 0) is None


@pytest.mark.parametrize(("seconds", "said"), [(5313, "89 min older"), (-5313, "89 min newer"), (2, "")])
def test_data_that_is_all_as_old_is_remarked_upon_and_no_stale_push(monkeypatch, seconds, said):
    monkeypatch.setattr(walking, "hours", lambda now, real_time: Hours(True, "a test"))

    def script(peer):
        peer.accept()
        peer.text()
        for _ in range(12):  # a second and more beyond the first: the stamps are whole seconds
            now = dt.datetime.now(CHINA) - dt.timedelta(seconds=seconds)
            peer.send(binary("lv1_600519=" + ",".join([f"{now:%H:%M:%S}", "x", *["1.00"] * 24])))
            time.sleep(0.2)
        peer.until_closed()

    with ScriptServer(script) as server:
        settings = {**QUICK, "seconds": 3.0, "subscriptions": ("lv1_600519",)}
        walked = examine(server=parse_server(server.ws), **settings, clock="exchange")
    made = report.make(walked)
    assert outcomes(walked)["data"] == "ok"
    clock = made.facts["detected"]["clock"]["least_seconds_from_stamp_to_arrival"]
    assert clock == pytest.approx(seconds, abs=2)
    if not said:
        assert "clock" not in outcomes(walked)
        assert judged(walked)["stale-first-push"] == "refuted"
        return
    assert step(walked, "clock").outcome == "remark"
    assert step(walked, "clock").found == f"all data is {said} than this machine's clock"
    assert "--clock always" in step(walked, "clock").todo
    assert judged(walked)["stale-first-push"] == "open"
    assert said in evidence_of(walked, "stale-first-push")
    assert made.text.splitlines()[-1].startswith("All that is needed works; see the remarks on ")
    assert "clock" in made.text.splitlines()[-1]


# --- blocks


@pytest.mark.parametrize("kind", ["stored", "fixed", "dynamic"])
@pytest.mark.parametrize("size", [0, 1, 100, 5000, 70000])
def test_blocks_are_told_apart(kind, size):
    text = bytes(str(list(range(size))), "ascii")[:size]
    assert set(blocks.kinds(deflate_as(kind, 6)(text), 1 << 20)) == {kind}


def test_several_blocks_are_walked_through():
    text = bytes(str(list(range(2000))), "ascii")
    assert blocks.kinds(deflate_as("flushed", 6)(text)) == ["dynamic", "stored", "dynamic", "stored", "stored"]


@pytest.mark.parametrize("data", [b"", b"\x07", b"\xff" * 100, deflate("x" * 1000 + "y")[:-2], b"\x05" + bytes(50)])
def test_what_is_no_stream_has_no_blocks(data):
    with pytest.raises(ValueError):
        blocks.kinds(data)


# --- the command


def test_the_command_tries_a_simulator_and_writes_what_it_found(tmp_path):
    folder = tmp_path / "out"
    before = os.umask(0)
    try:
        with Command("doctor", "--sim", "--seconds", "1.5", "--output", str(folder), "--json") as command:
            assert command.end() == 0, command.errors()
            said = command.errors()
    finally:
        os.umask(before)
    names = ["doctor.json", "doctor.jvq", "doctor.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(str(folder / name) in said for name in names)
    facts = json.loads("\n".join(command.lines))
    assert facts == json.loads((folder / "doctor.json").read_text())
    assert facts["ok"] is True
    found = {each["id"]: each["judgement"] for each in facts["assumptions"]}
    assert "refuted" not in found.values()
    assert found["lv2-cancellations"] == "confirmed"
    text = (folder / "doctor.txt").read_text()
    for word in ("STEPS", "0#添加成功:6", "贵州茅台", "confirmed empty-levels", "All that is needed works"):
        assert word in text
    decoder = jvq.Decoder(clock="always")
    jvq.replay(folder / "doctor.jvq", decoder)
    assert {name: decoder.stats()[name] for name in ("trades", "quotes", "depths", "bad")} == {
        name: facts["counters"][name] for name in ("trades", "quotes", "depths", "bad")
    }


def test_it_overwrites_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    (tmp_path / "doctor.json").write_text("mine")
    assert main(["doctor", "--server", "ws://127.0.0.1:9", "--output", str(tmp_path)]) == 1
    assert "exists, and is left as it is" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["doctor.json"]
    assert (tmp_path / "doctor.json").read_text() == "mine"
    (tmp_path / "doctor.json").unlink()
    (tmp_path / "doctor.txt").symlink_to(tmp_path / "elsewhere")
    assert main(["doctor", "--server", "ws://127.0.0.1:9", "--output", str(tmp_path)]) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_walk_is_written_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    assert main(["doctor", "--server", "ws://127.0.0.1:9", "--output", str(tmp_path / "out")]) == 1
    assert "FAILED   connection" in (tmp_path / "out" / "doctor.txt").read_text()
    assert entries(tmp_path / "out" / "doctor.jvq") == []
    assert "NOT WELL: connection" in capsys.readouterr().out


def test_a_report_that_can_not_be_written_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    folder = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        assert main(["doctor", "--server", "ws://127.0.0.1:9", "--output", str(folder)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr()
    assert "NOT WELL: connection" in said.out
    last = said.err.splitlines()[-1]
    assert last == f"jvq-fast doctor: can't write the report to {folder}: File too large; it is printed instead"
    assert list(folder.iterdir()) == []


def test_a_directory_that_can_not_be_made_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--server", "ws://127.0.0.1:9", "--output", str(tmp_path / "file" / "x")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["lv3_600519"], "lv3_600519"),
        (["--server", "ftp://x"], "ftp://x"),
        (["--allocation", "what ever"], "what ever"),
        (["--trading-day", "today"], "today"),
        (["--sim", "--token", "0" * 32], "--sim"),
    ],
)
def test_settings_that_make_no_sense_are_named(arguments, named, capsys, monkeypatch):
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    assert main(["doctor", *arguments]) == 2
    assert named in capsys.readouterr().err


def test_without_a_token_it_says_how_to_give_one(capsys):
    assert main(["doctor"]) == 2
    assert "no token" in capsys.readouterr().err


def wait_until_it_says(command, words):
    deadline = time.monotonic() + WAIT
    while words not in command.errors():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("output", "number"), [(False, signal.SIGINT), (True, signal.SIGINT), (True, signal.SIGHUP)])
def test_ctrl_c_ends_it_with_the_report_and_says_so(tmp_path, output, number):
    folder = tmp_path / "report"
    with Command("doctor", "--sim", "--seconds", "600", *(["--output", str(folder)] if output else [])) as command:
        wait_until_it_says(command, "listening")
        time.sleep(0.5)
        command.interrupt(number)
        assert command.end() == 130, command.errors()
        last = command.errors().splitlines()[-1]
    assert last.startswith("jvq-fast doctor: interrupted: the report of what was seen by then is ")
    assert last.endswith(f"written to {folder}" if output else "written nowhere")
    assert any(line.startswith("  ok       decoding") for line in command.lines)
    assert any(line.startswith("INTERRUPTED") for line in command.lines)
    assert any(re.match(r"  ok       data: .*; interrupted after [\d.]+ of 600 s$", line) for line in command.lines)
    assert "What was finished works; not finished: data" in command.lines
    assert not any("All that is needed works" in line for line in command.lines)
    if output:
        facts = json.loads((folder / "doctor.json").read_text())
        assert facts["interrupted"] is True
        assert facts["unfinished"] == ["data"]
        assert "INTERRUPTED" in (folder / "doctor.txt").read_text()


def test_ctrl_c_does_not_wait_for_an_allocation_that_hangs():
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        where = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        with Command("doctor", "--allocation", where, JVQ_FAST_TOKEN=TOKEN, no_proxy="127.0.0.1") as command:
            hanging.settimeout(WAIT)
            with hanging.accept()[0]:
                command.interrupt()
                assert command.end() == 130, command.errors()
    assert any("interrupted before there was a reply" in line for line in command.lines)
    assert "What was finished works; not finished: allocation, commands, ping, data" in command.lines


def test_a_second_ctrl_c_ends_it_at_once_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    def walk_interrupted_twice(plan, interrupt):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("jvq_fast.cli.doctor._walked", walk_interrupted_twice)
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    assert main(["doctor", "--output", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().err
    assert said == f"jvq-fast doctor: interrupted twice: the report was not made; no report in {tmp_path / 'out'}\n"
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("is_made", [False, True])
def test_ctrl_c_tells_truly_whether_the_report_was_made(tmp_path, monkeypatch, capsys, is_made):
    """Between the last of the files and the end of the command, it is."""
    fdopen = os.fdopen
    opened = []

    def interrupted(*arguments):
        if not is_made and len(opened) == len(FILES) - 1:
            raise KeyboardInterrupt
        opened.append(fdopen(*arguments))
        return opened[-1]

    def interrupted_at_the_end(files):
        raise KeyboardInterrupt

    walked = walking.Walk(walking.Plan(Secret(TOKEN), SUBSCRIPTIONS, "", None), hours(0, real_time=True), 0)
    monkeypatch.setattr("jvq_fast.cli.doctor._walked", lambda plan, interrupt: walked)
    monkeypatch.setattr("jvq_fast.cli.doctor.make", lambda walked: report.Report({}, "text"))
    monkeypatch.setattr("os.fdopen", interrupted)
    if is_made:
        monkeypatch.setattr(report.Files, "close", interrupted_at_the_end)
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    assert main(["doctor", "--output", str(tmp_path)]) == 130
    assert ("was not made" in capsys.readouterr().err) is not is_made
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_size} == (set(FILES) if is_made else set())
    assert is_made or not list(tmp_path.iterdir())
