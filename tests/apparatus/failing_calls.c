/* Fail the n-th call of a kind, counted over a whole tree of processes.
 *
 * A library for LD_PRELOAD. A process counts from its first open of a path below ROOT on, so that
 * the start of the interpreter does not count. Calls on paths and files count when they are below
 * ROOT, reads and writes also on pipes; calls for memory, processes and threads always count.
 *
 *   FAILING_CALLS_ROOT    folder of the files that count
 *   FAILING_CALLS_SHARED  file of at least sizeof(struct shared), zeros: counts and what failed
 *   FAILING_CALLS         KIND:N:ERRNO:LASTING, numbers; ERRNO 0 shortens a read or write by half
 *
 * Calls inside the C library, such as for a thread's stack, are not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { OPEN, WRITE, SYNC, RENAME, CHANGE, READ, MAP, FORK, ALLOCATE, KINDS };

struct shared {
    atomic_ulong counts[KINDS];
    atomic_ulong failures;
    char what[256]; /* of the first failure */
};

#define FILES 1024

static struct shared *shared;
static char root[256];
static size_t root_length;
static int kind_to_fail = -1, error, lasting;
static unsigned long at;
static atomic_int armed;
static atomic_uchar watched[FILES]; /* descriptors of files below the root */

__attribute__((constructor)) static void begin(void)
{
    const char *order = getenv("FAILING_CALLS"), *file = getenv("FAILING_CALLS_SHARED");
    const char *below = getenv("FAILING_CALLS_ROOT");
    if (!order || !file || !below || strlen(below) >= sizeof root)
        return;
    if (sscanf(order, "%d:%lu:%d:%d", &kind_to_fail, &at, &error, &lasting) != 4)
        return;
    root_length = strlen(strcpy(root, below));
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    long place = syscall(SYS_mmap, NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);
    syscall(SYS_close, fd);
    if (place > 0 || place < -4095)
        shared = (struct shared *)place;
}

/* Whether this call, the next of its kind, is one to fail. */
static int fails(enum kind kind, const char *call, const char *object)
{
    if (!shared || !atomic_load(&armed))
        return 0;
    unsigned long number = atomic_fetch_add(&shared->counts[kind], 1) + 1;
    if ((int)kind != kind_to_fail || !(number == at || (lasting && number > at)))
        return 0;
    if (atomic_fetch_add(&shared->failures, 1) == 0)
        snprintf(shared->what, sizeof shared->what, "%s %s", call, object);
    errno = error;
    return 1;
}

static int below_root(const char *path)
{
    return shared && path && strncmp(path, root, root_length) == 0;
}

static const char *kept_name(const char *path)
{
    return path[root_length] == '/' ? path + root_length + 1 : path + root_length;
}

/* Whether a call on a path is one to fail. */
static int path_fails(enum kind kind, const char *call, const char *path)
{
    return below_root(path) && fails(kind, call, kept_name(path));
}

static int is_pipe(int fd)
{
    struct stat found;
    return syscall(SYS_fstat, fd, &found) == 0 && S_ISFIFO(found.st_mode);
}

/* Whether a call on a descriptor is one to fail. */
static int file_fails(enum kind kind, const char *call, int fd)
{
    char name[16];
    if (!shared || !atomic_load(&armed))
        return 0;
    if (!(fd >= 0 && fd < FILES && atomic_load(&watched[fd])) && !is_pipe(fd))
        return 0;
    snprintf(name, sizeof name, "fd %d", fd);
    return fails(kind, call, name);
}

static size_t half(size_t length)
{
    return (length + 1) / 2;
}

static int opened(const char *call, int folder, const char *path, int flags, mode_t mode)
{
    if (below_root(path))
        atomic_store(&armed, 1);
    if (path_fails(OPEN, call, path))
        return -1;
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && fd < FILES)
        atomic_store(&watched[fd], (unsigned char)below_root(path));
    return fd;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPENS(name)                                                                               \
    int name(const char *path, int flags, ...)                                                    \
    {                                                                                             \
        va_list arguments;                                                                        \
        va_start(arguments, flags);                                                               \
        mode_t mode = mode_of(flags, arguments);                                                  \
        va_end(arguments);                                                                        \
        return opened("open", AT_FDCWD, path, flags, mode);                                       \
    }

#define OPENS_AT(name)                                                                            \
    int name(int folder, const char *path, int flags, ...)                                        \
    {                                                                                             \
        va_list arguments;                                                                        \
        va_start(arguments, flags);                                                               \
        mode_t mode = mode_of(flags, arguments);                                                  \
        va_end(arguments);                                                                        \
        return opened("openat", folder, path, flags, mode);                                       \
    }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int fd)
{
    if (fd >= 0 && fd < FILES)
        atomic_store(&watched[fd], 0);
    return (int)syscall(SYS_close, fd);
}

int pipe2(int fds[2], int flags)
{
    return fails(OPEN, "pipe", "") ? -1 : (int)syscall(SYS_pipe2, fds, flags);
}

int memfd_create(const char *name, unsigned flags)
{
    return fails(OPEN, "memfd_create", name) ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

ssize_t write(int fd, const void *data, size_t length)
{
    if (file_fails(WRITE, "write", fd)) {
        if (error)
            return -1;
        length = half(length);
    }
    return syscall(SYS_write, fd, data, length);
}

ssize_t read(int fd, void *data, size_t length)
{
    if (file_fails(READ, "read", fd)) {
        if (error)
            return -1;
        length = half(length);
    }
    return syscall(SYS_read, fd, data, length);
}

int fsync(int fd)
{
    return file_fails(SYNC, "fsync", fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return file_fails(SYNC, "fdatasync", fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *old, const char *new)
{
    return path_fails(RENAME, "rename", new) ? -1 : (int)syscall(SYS_rename, old, new);
}

int unlink(const char *path)
{
    return path_fails(CHANGE, "unlink", path) ? -1 : (int)syscall(SYS_unlink, path);
}

int mkdir(const char *path, mode_t mode)
{
    return path_fails(CHANGE, "mkdir", path) ? -1 : (int)syscall(SYS_mkdir, path, mode);
}

int rmdir(const char *path)
{
    return path_fails(CHANGE, "rmdir", path) ? -1 : (int)syscall(SYS_rmdir, path);
}

int chmod(const char *path, mode_t mode)
{
    return path_fails(CHANGE, "chmod", path) ? -1 : (int)syscall(SYS_chmod, path, mode);
}

int fchmod(int fd, mode_t mode)
{
    return file_fails(CHANGE, "fchmod", fd) ? -1 : (int)syscall(SYS_fchmod, fd, mode);
}

int ftruncate(int fd, off_t length)
{
    return file_fails(CHANGE, "ftruncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

int flock(int fd, int operation)
{
    return file_fails(CHANGE, "flock", fd) ? -1 : (int)syscall(SYS_flock, fd, operation);
}

void *mmap(void *place, size_t length, int access, int flags, int fd, off_t offset)
{
    if (fails(MAP, "mmap", fd < 0 ? "memory" : "file"))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, place, length, access, flags, fd, offset);
}

void *mmap64(void *place, size_t length, int access, int flags, int fd, off64_t offset)
{
    return mmap(place, length, access, flags, fd, offset);
}

pid_t fork(void)
{
    static pid_t (*real)(void);
    if (!real)
        real = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
    return fails(FORK, "fork", "") ? -1 : real();
}

/* vfork cannot be wrapped: its child would return through a frame that its parent still needs. */
pid_t vfork(void)
{
    return fork();
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real)
        real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(
            RTLD_NEXT, "pthread_create");
    return fails(FORK, "thread", "") ? error : real(thread, attributes, start, argument);
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    return fails(ALLOCATE, "malloc", "") ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(ALLOCATE, "calloc", "") ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails(ALLOCATE, "realloc", "") ? NULL : __libc_realloc(old, size);
}
