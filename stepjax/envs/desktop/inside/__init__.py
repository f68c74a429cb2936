"""The program that runs inside a desktop, under Debian's own Python 3.11.

It starts the session bus, the X server, the window manager and the accessibility bus,
then answers HTTP on a Unix socket it inherits. It needs python3-xlib, python3-pil and
python3-gi, and must not import stepjax: the host's packages are not there.
"""
