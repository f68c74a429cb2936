"""The steps that set a task up, and the parameters that each one takes."""

__all__ = ["SETUP_TYPES"]

# Setup type -> required and optional parameters, each with the types it may have.
_COMMAND = (str, list)
_FLAG = (bool, str)
_RUN = (
    {"command": _COMMAND},
    {"shell": _FLAG, "stdout": (str,), "stderr": (str,)},
)
_WINDOW = ({"window_name": (str,)}, {"strict": _FLAG, "by_class": _FLAG})
SETUP_TYPES: dict[str, tuple[dict[str, tuple], dict[str, tuple]]] = {
    "download": ({"files": (list,)}, {}),
    "upload_file": ({"files": (list,)}, {}),
    "launch": ({"command": _COMMAND}, {"shell": _FLAG}),
    "open": ({"path": (str,)}, {}),
    "execute": _RUN,
    "command": _RUN,
    "activate_window": _WINDOW,
    "close_window": _WINDOW,
    "sleep": ({"seconds": (int, float)}, {}),
    "change_wallpaper": ({"path": (str,)}, {}),
    "chrome_open_tabs": ({"urls_to_open": (list,)}, {}),
    "chrome_close_tabs": ({"urls_to_close": (list,)}, {}),
    "update_browse_history": ({"history": (list,)}, {}),
    "googledrive": ({"operation": (list,), "args": (list,)}, {"settings_file": (str,)}),
    "login": ({"platform": (str,)}, {"settings_file": (str,)}),
}
"""Setup steps that the format has; `setup.run_setup` says which of them run here."""
