"""Linux's system calls in the groups that `lockdown` uses: name, number on x86-64, number on arm64; "-" for none.

The groups have what Python, NumPy, torch, OpenMP, OpenVINO and CUDA call; everything else is refused, also what a later
kernel adds.

Source: asm/unistd_64.h and asm-generic/unistd.h of Linux 6.1.
"""

MACHINES = ("x86_64", "aarch64")  # as os.uname says, in the order of the columns
HIGHEST = 451  # the last number of that Linux; higher ones are unknown here

FILES = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, open 2 -, creat 85 -, openat 257 56, openat2 437 437, close 3 57, close_range 436
436, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48, faccessat2
439 439, lseek 8 62, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, flock 73 32, fsync 74 82, fdatasync
75 83, sync_file_range 277 84, truncate 76 45, ftruncate 77 46, fallocate 285 47, fadvise64 221 223, readahead 187
213, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38,
renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, link 86 -, linkat 265 37,
symlink 88 -, symlinkat 266 36, readlink 89 -, readlinkat 267 78, chmod 90 -, fchmod 91 52, fchmodat 268 53, umask
95 166, utime 132 -, utimes 235 -, utimensat 280 88, futimesat 261 -, statfs 137 43, fstatfs 138 44, getxattr 191 8,
lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, sendfile 40 71, splice
275 76, tee 276 77, copy_file_range 326 285, memfd_create 319 279, inotify_init 253 -, inotify_init1 294 26,
inotify_add_watch 254 27, inotify_rm_watch 255 28
"""
WAITING = """
select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21,
epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19, timerfd_create 283 85,
timerfd_settime 286 86, timerfd_gettime 287 87, signalfd 282 -, signalfd4 289 74
"""
MEMORY = """
mmap 9 222, munmap 11 215, mremap 25 216, mprotect 10 226, madvise 28 233, mincore 27 232, msync 26 227, mlock 149
228, munlock 150 229, mlock2 325 284, mlockall 151 230, munlockall 152 231, brk 12 214, mbind 237 235, set_mempolicy
238 237, get_mempolicy 239 236, set_mempolicy_home_node 450 450, pkey_alloc 330 289, pkey_free 331 290,
pkey_mprotect 329 288, membarrier 324 283
"""
THREADS = """
futex 202 98, futex_waitv 449 449, sched_yield 24 124, sched_getaffinity 204 123, sched_setaffinity 203 122,
sched_getparam 143 121, sched_getscheduler 145 120, sched_getattr 315 275, sched_get_priority_max 146 125,
sched_get_priority_min 147 126, sched_rr_get_interval 148 127, getpriority 140 141, set_tid_address 218 96,
set_robust_list 273 99, rseq 334 293, exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95, gettid 186 178,
getpid 39 172, getppid 110 173, getpgrp 111 -, getpgid 121 155, setpgid 109 154, getsid 124 156, setsid 112 157,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups
115 158, capget 125 90, nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
gettimeofday 96 169, time 201 -, times 100 153, getitimer 36 102, setitimer 38 103, alarm 37 -, timer_create 222
107, timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111, getcpu 309 168,
getrusage 98 165, getrlimit 97 163, setrlimit 160 164, sysinfo 99 179, uname 63 160, arch_prctl 158 -, getrandom 318
278, restart_syscall 219 128, seccomp 317 277
"""
SIGNALS = """
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
rt_sigreturn 15 139, sigaltstack 131 132, pause 34 -
"""
OPEN_SOCKETS = """
recvfrom 45 207, recvmsg 47 212, sendto 44 206, sendmsg 46 211, getsockopt 55 209, setsockopt 54 208, getsockname 51
204, getpeername 52 205, shutdown 48 210
"""
NETWORK = """
connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242, sendmmsg 307 269,
recvmmsg 299 243
"""  # connections, for a process that has a socket
PROCESSES = """
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281
"""  # other programs
CONDITIONAL = """
clone 56 220, clone3 435 435, kill 62 129, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240,
prlimit64 302 261, fcntl 72 25, ioctl 16 29, prctl 157 167, socketpair 53 199, socket 41 198
"""  # depending on their arguments, see `lockdown`


def numbers(group: str, machine: str) -> dict[str, int]:
    """Name -> number of the calls of a group that a machine has."""
    column = 1 + MACHINES.index(machine)
    rows = [row.split() for row in group.split(",")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
