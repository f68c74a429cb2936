"""A filter of system calls for everything in a desktop.

Namespaces do not divide all of the kernel: keys of the trainer's session would be
readable, sockets to the machine's hypervisor could be opened, and rarely used calls are
where the kernel's own faults are. What is refused here no application needs.
"""

import errno
import platform
import struct

from stepjax.envs.desktop.sandbox.spec import SandboxError

__all__ = ["filter_program"]

# The names, and the calls' numbers on x86_64 and aarch64; None where it has none.
_REFUSED = {
    # Keys.
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # New namespaces, other namespaces, mounts.
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    # The machine's own state.
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "iopl": (172, None), "ioperm": (173, None),
    # Large, privileged by design, and of no use here.
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "lookup_dcookie": (212, 18),
    "move_pages": (279, 239), "migrate_pages": (256, 238),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_SOCKETS = ((41, 198), (53, 199))  # socket, socketpair
_NEW_NAMESPACE = 0x7E020000
# Unix, IPv4, IPv6, netlink: these end at the desktop's own network.
_FAMILIES = (1, 2, 10, 16)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _JUMP_EQUAL, _JUMP_FROM, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16


def filter_program(machine: str | None = None) -> bytes:
    """The filter as the kernel and bubblewrap take it.

    Args:
      machine: Name of the processor's kind; None for this machine's.

    Raises:
      SandboxError: If its system calls are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise SandboxError(
            f"Desktops run on {' and '.join(_MACHINES)}, and this is a {machine}."
        )
    column, audit = _MACHINES[machine]
    code = [
        (_LOAD, 0, 0, _MACHINE),
        (_JUMP_EQUAL, 1, 0, audit),
        _refuse(errno.ENOSYS),  # calls of another kind of processor: 32 bit
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_FROM, 0, 1, 0x40000000),
        _refuse(errno.ENOSYS),  # x32, the same calls by other numbers
    ]
    for numbers in _REFUSED.values():
        if numbers[column] is not None:
            code += [(_JUMP_EQUAL, 0, 1, numbers[column]), _refuse(errno.EPERM)]
    # Its flags are behind a pointer, which no filter can follow; told that it does not
    # exist, the C library takes the older call.
    code += [(_JUMP_EQUAL, 0, 1, _CLONE3[column]), _refuse(errno.ENOSYS)]
    code += [
        (_JUMP_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_BITS, 0, 1, _NEW_NAMESPACE),
        _refuse(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for numbers in _SOCKETS:
        code.append((_JUMP_EQUAL, 0, 3 + len(_FAMILIES), numbers[column]))
        code.append((_LOAD, 0, 0, _FIRST_ARGUMENT))
        for at, family in enumerate(_FAMILIES):
            code.append((_JUMP_EQUAL, len(_FAMILIES) - at, 0, family))
        code += [_refuse(errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *one) for one in code)


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERROR | number)
