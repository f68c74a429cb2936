"""Facts."""

__all__ = ["FACTS"]

FACTS: dict[str, tuple[float, str]] = {"SystemBluetoothTurnOn": (1.0, "settings")}
