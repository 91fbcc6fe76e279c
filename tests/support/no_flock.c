/* Preloaded by test_store_locks.py: a file system whose flock always succeeds, or with -DERROR=ENOLCK always fails. */
#include <errno.h>

int flock(int fd, int operation)
{
    (void)fd, (void)operation;
#ifdef ERROR
    errno = ERROR;
    return -1;
#else
    return 0;
#endif
}
