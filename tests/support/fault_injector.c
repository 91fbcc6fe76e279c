/* Preloaded by fault_harness.py: fails the N-th call of one kind on a file below a folder with an error number. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME, OPEN, READ, KINDS };
static char prefix[4096];
static int armed_kind = -1, armed_error;
static long armed_call = -1, counts[KINDS];

/* Arm: fail call number `call` of a kind below `folder`; call -1 only counts. */
void arm(const char *folder, int kind, long call, int error)
{
    memset(counts, 0, sizeof counts);
    armed_kind = kind, armed_call = call, armed_error = error;
    snprintf(prefix, sizeof prefix, "%s", folder);
}

long count(int kind) { return counts[kind]; }

static int fails(int kind, const char *path)
{
    if (!prefix[0] || !path || strncmp(path, prefix, strlen(prefix))) return 0;
    if (kind == armed_kind && counts[kind]++ == armed_call) { errno = armed_error; return 1; }
    if (kind != armed_kind) counts[kind]++;
    return 0;
}

static int fd_fails(int kind, int fd)
{
    char link[64], path[4096];
    if (!prefix[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails(kind, path);
}

#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size)
{ NEXT(write); return fd_fails(WRITE, fd) ? -1 : next(fd, data, size); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{ NEXT(pwrite64); return fd_fails(WRITE, fd) ? -1 : next(fd, data, size, at); }
ssize_t read(int fd, void *data, size_t size)
{ NEXT(read); return fd_fails(READ, fd) ? -1 : next(fd, data, size); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{ NEXT(pread64); return fd_fails(READ, fd) ? -1 : next(fd, data, size, at); }
int fsync(int fd)
{ NEXT(fsync); return fd_fails(FSYNC, fd) ? -1 : next(fd); }
int rename(const char *from, const char *to)
{ NEXT(rename); return fails(RENAME, from) ? -1 : next(from, to); }
int open64(const char *path, int flags, ...)
{
    NEXT(open64);
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    return fails(OPEN, path) ? -1 : next(path, flags, mode);
}
int open(const char *path, int flags, ...)
{
    NEXT(open);
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    return fails(OPEN, path) ? -1 : next(path, flags, mode);
}
