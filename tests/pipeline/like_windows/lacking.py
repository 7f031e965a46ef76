"""Names that Windows lacks, of the modules that CPython has on Linux (its documentation: "Availability: Unix")."""

MODULES = "crypt fcntl grp nis posix pty pwd resource spwd syslog termios tty"
OS = """
    chown chroot fchmod fchown fdatasync fork forkpty fpathconf fstatvfs getegid geteuid getgid getgroups getloadavg
    getpgid getpgrp getpriority getresgid getresuid getsid getuid killpg lchown lockf mkfifo mknod nice openpty pathconf
    pipe2 posix_fadvise posix_fallocate posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork
    sched_getaffinity sched_setaffinity sched_yield sendfile setegid seteuid setgid setgroups setpgid setpriority
    setregid setresgid setresuid setreuid setsid setuid splice statvfs sync sysconf ttyname uname wait wait3 wait4
    waitid writev
    O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC O_TMPFILE
    WNOHANG WEXITSTATUS WIFEXITED WIFSIGNALED WTERMSIG
"""
SIGNALS = "SIGINT SIGTERM SIGABRT SIGFPE SIGILL SIGSEGV SIGBREAK"
"""Signals that Windows has."""
SIGNAL_CALLS = "alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigwait"
