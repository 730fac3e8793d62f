"""A clock that is wrong: a library for LD_PRELOAD or /etc/ld.so.preload."""

from __future__ import annotations

import subprocess
from pathlib import Path

# The clock of whatever loads it is wrong by so many seconds as the file $OFFSET says, else /etc/clock; time that passes
# stays right. It takes no lock and no memory, as the clock is asked in signal handlers and in forked processes, too.
CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset(void) {
    char digits[24] = {0};
    const char *named = getenv("OFFSET");
    int file = open(named ? named : "/etc/clock", O_RDONLY);
    if (file < 0) return 0;
    if (read(file, digits, sizeof digits - 1) < 0) digits[0] = 0;
    close(file);
    return strtol(digits, NULL, 10);
}
int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && id == CLOCK_REALTIME) now->tv_sec += offset();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec, now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *result) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (result) *result = precise.tv_sec;
    return precise.tv_sec;
}
"""


def make_clock(folder: Path) -> Path:
    """The library, in `folder`."""
    (folder / "clock.c").write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c"], check=True)
    return folder / "clock.so"
