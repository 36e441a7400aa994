"""Keep a process from signaling the processes that watch it, where the system can: Linux on x86-64 and on ARM.

This is a filter on system calls (seccomp(2)) that child processes inherit. A process that signals the suite is ended
with SIGSYS before the signal is sent. Calls that would change the suite's affinity, scheduling, limits or memory are
refused; so is memory that a thread fills when it is first read, which would be after the clock. Signal 0, which only
asks whether a process exists, is allowed. What no filter sees, the files of /proc that are another process's memory,
Landlock denies to whoever is in a domain of its own, whatever its rules are.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html, https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER = 38, 1
_SPEC_ALLOW = 4  # else old kernels turn off speculation past stores, and everything gets slower
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000  # 1: EPERM
_OTHER_TABLE = 0x40000000  # x32's system calls on x86-64
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all machines
_VERSION, _BENEATH = 1, 1
_MAKE_BLOCK_DEVICES, _MOVE = 1 << 11, 1 << 13  # only the first is denied: no implementation does it


class _Call(NamedTuple):
    """A system call with a process in one of its arguments, and in some a signal in another."""

    numbers: dict[str, int]
    process: int | None
    signal: int | None
    verdict: int


_CALLS = (
    _Call({"x86_64": 62, "aarch64": 129}, 0, 1, _KILL),  # kill
    _Call({"x86_64": 200, "aarch64": 130}, 0, 1, _KILL),  # tkill
    _Call({"x86_64": 234, "aarch64": 131}, 0, 2, _KILL),  # tgkill
    _Call({"x86_64": 129, "aarch64": 138}, 0, 1, _KILL),  # rt_sigqueueinfo
    _Call({"x86_64": 297, "aarch64": 240}, 0, 2, _KILL),  # rt_tgsigqueueinfo
    _Call({"x86_64": 424, "aarch64": 424}, None, None, _REFUSE),  # pidfd_send_signal
    _Call({"x86_64": 434, "aarch64": 434}, 0, None, _REFUSE),  # pidfd_open
    _Call({"x86_64": 101, "aarch64": 117}, 1, None, _REFUSE),  # ptrace
    _Call({"x86_64": 311, "aarch64": 271}, 0, None, _REFUSE),  # process_vm_writev
    _Call({"x86_64": 203, "aarch64": 122}, 0, None, _REFUSE),  # sched_setaffinity
    _Call({"x86_64": 142, "aarch64": 118}, 0, None, _REFUSE),  # sched_setparam
    _Call({"x86_64": 144, "aarch64": 119}, 0, None, _REFUSE),  # sched_setscheduler
    _Call({"x86_64": 314, "aarch64": 274}, 0, None, _REFUSE),  # sched_setattr
    _Call({"x86_64": 141, "aarch64": 140}, 1, None, _REFUSE),  # setpriority
    _Call({"x86_64": 302, "aarch64": 261}, 0, None, _REFUSE),  # prlimit64
    _Call({"x86_64": 323, "aarch64": 282}, None, None, _REFUSE),  # userfaultfd
)
_MACHINE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def protect(processes: list[int]) -> bool:
    """From now on, this process and its descendants can't signal these processes, nor all processes at once.

    Args:
        processes: Their ids; negative ones are groups, as for kill(2).

    Returns:
        Whether the system can do that, and does.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _MACHINE or sys.maxsize < 2**32:
        return False
    code = _filter(machine, [*processes, -1])
    library = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    _enter_a_domain(library)
    return bool(library.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(program)) == 0)


def _enter_a_domain(library: ctypes.CDLL) -> None:
    """Where the system has Landlock, since Linux 5.19: before, a domain couldn't allow moves between folders."""
    if library.syscall(_CREATE_RULESET, None, 0, _VERSION) < 2:
        return
    handled = struct.pack("Q", _MAKE_BLOCK_DEVICES | _MOVE)
    rules, root = library.syscall(_CREATE_RULESET, handled, len(handled), 0), os.open("/", os.O_PATH)
    if library.syscall(_ADD_RULE, rules, _BENEATH, struct.pack("=Qi", _MOVE, root), 0) == 0:
        library.syscall(_RESTRICT_SELF, rules, 0)
    os.close(root)
    os.close(rules)


def _filter(machine: str, processes: list[int]) -> bytes:
    code = [
        _instruction(_LOAD, 4),  # the architecture whose numbers these are
        _instruction(_EQUAL, _MACHINE[machine], yes=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, 0),  # the number of the call
    ]
    if machine == "x86_64":
        code += [_instruction(_AT_LEAST, _OTHER_TABLE, no=1), _instruction(_RETURN, _KILL)]
    for call in _CALLS:
        block = _block(call, processes)
        code += [_instruction(_EQUAL, call.numbers[machine], no=len(block)), *block]
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _block(call: _Call, processes: list[int]) -> list[bytes]:
    if call.process is None:
        return [_instruction(_RETURN, call.verdict)]
    block = []
    if call.signal is not None:
        harmless = [_instruction(_EQUAL, 0, no=1), _instruction(_RETURN, _ALLOW)]
        block += [_instruction(_LOAD, _argument(call.signal)), *harmless]
    block.append(_instruction(_LOAD, _argument(call.process)))
    for process in processes:
        block += [_instruction(_EQUAL, process & 0xFFFFFFFF, no=1), _instruction(_RETURN, call.verdict)]
    return [*block, _instruction(_RETURN, _ALLOW)]


def _argument(number: int) -> int:
    """Where the lower half of an argument is."""
    return 16 + 8 * number + (0 if sys.byteorder == "little" else 4)


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)
