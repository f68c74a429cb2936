"""Asking the active window for a sign of life, which it gives after earlier input."""

import select
import time
from typing import Any

from Xlib import X, error  # pyright: ignore[reportMissingModuleSource]
from Xlib.protocol import event  # pyright: ignore[reportMissingModuleSource]

__all__ = ["pinged"]


def pinged(display: Any, seconds: float) -> bool:
    """Whether the active window answers; it has then read all earlier input.

    Args:
      display: An `Xlib.display.Display`; its events are thrown away.
      seconds: How long to wait for it.
    """
    root = display.screen().root
    active = root.get_full_property(display.intern_atom("_NET_ACTIVE_WINDOW"), 0)
    if active is None or not active.value or not active.value[0]:
        return False
    number = int(active.value[0])
    protocols = display.intern_atom("WM_PROTOCOLS")
    ping = display.intern_atom("_NET_WM_PING")
    stamp = time.monotonic_ns() & 0x7FFFFFFF
    window = display.create_resource_object("window", number)
    try:
        known = window.get_full_property(protocols, 0)
        if known is None or ping not in known.value:
            return False
    except error.XError:
        return False  # closed meanwhile
    # The answer goes to the root window, to whoever listens there; for this long only.
    root.change_attributes(event_mask=X.SubstructureNotifyMask)
    message = event.ClientMessage(
        window=window,
        client_type=protocols,
        data=(32, [ping, stamp, number, 0, 0]),
    )
    window.send_event(message, event_mask=0)
    try:
        return _answered(display, root, ping, stamp, time.monotonic() + seconds)
    finally:
        root.change_attributes(event_mask=0)
        display.sync()


def _answered(display: Any, root: Any, ping: int, stamp: int, end: float) -> bool:
    display.flush()
    while True:
        while display.pending_events():
            one = display.next_event()
            if one.type == X.ClientMessage and one.window.id == root.id:
                numbers = list(one.data[1])
                if numbers[:2] == [ping, stamp]:
                    return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        select.select([display.display.socket], [], [], min(left, 0.1))
