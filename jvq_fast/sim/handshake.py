"""Handshakes that come to nothing: refused with a status, or never answered."""

from http import HTTPStatus

from picows import WSFrame, WSListener, WSTransport, WSUpgradeResponse, WSUpgradeResponseWithListener

from jvq_fast.sim.faults import Fault


class NoResponse(WSUpgradeResponse):
    """A handshake accepted without a word."""

    def __init__(self) -> None:
        model = WSUpgradeResponse.create_101_response()
        self.version, self.status, self.headers, self.body = model.version, model.status, model.headers, model.body

    def to_bytes(self) -> bytearray:
        return bytearray()


class Unheard(WSListener):
    """A client whose handshake is never answered, or cut short."""

    def __init__(self, fault: Fault) -> None:
        self._drop = fault.kind.name == "handshake_drop"

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self._drop:
            transport.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        pass


def refuse(status: int, body: bytes = b"") -> WSUpgradeResponseWithListener:
    """Answer with an HTTP status."""
    response = WSUpgradeResponse.create_ok_response(body)
    response.status = HTTPStatus(status)
    return WSUpgradeResponseWithListener(response, None)
