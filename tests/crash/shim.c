/* Stands between a process and the C library where it changes files below one folder: counts the calls, notes them
   down, ends the process at one of them, or lets some fail. Loaded with LD_PRELOAD, driven by shim.py.

   Only calls through the C library are seen, which TensorStore's and SQLite's are; what is written through a memory
   map is not. While armed, calls are made one at a time, so that what is noted stands in the order it happened. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, LINK = 8, CREATE = 16, OPEN = 32, MKDIR = 64, REMOVE = 128, TRUNCATE = 256,
       MARK = 512 };
enum { COUNT, DIE, TEAR, FAIL, SHORTEN };

static char prefix[PATH_MAX];
static int kinds, action, number;
static long first, last, counted, counted_of[16], met;
static int log_fd = -1;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* -- what shim.py calls ------------------------------------------------------------------------------------------- */

void shim_arm(const char *below, int which, long from, long to, int what, int error) {
    pthread_mutex_lock(&turn);
    snprintf(prefix, sizeof prefix, "%s", below);
    kinds = which, first = from, last = to, action = what, number = error, counted = met = 0;
    memset(counted_of, 0, sizeof counted_of);
    pthread_mutex_unlock(&turn);
}

long shim_counted(int which) {
    long sum = 0;
    for (int kind = 0; kind < 16; kind++)
        sum += which >> kind & 1 ? counted_of[kind] : 0;
    return sum;
}

long shim_met(void) { return met; }

void shim_log(int fd) { log_fd = fd; }

/* -- the log ------------------------------------------------------------------------------------------------------ */

struct header {
    int32_t kind;
    uint32_t path, other, data;
    uint64_t inode;
    int64_t offset;
};

static void put(const void *bytes, size_t size) {
    NEXT(write);
    while (size > 0) {
        ssize_t put = next(log_fd, bytes, size);
        if (put < 0)
            abort();
        bytes = (const char *)bytes + put, size -= put;
    }
}

static void note(int kind, uint64_t inode, int64_t offset, const char *path, const char *other, const void *data,
                 size_t size) {
    if (log_fd < 0)
        return;
    int before = errno;
    struct header header = {kind, strlen(path), strlen(other), size, inode, offset};
    put(&header, sizeof header);
    put(path, header.path);
    put(other, header.other);
    put(data, size);
    errno = before;
}

void shim_mark(const char *text) {
    pthread_mutex_lock(&turn);
    note(MARK, 0, 0, "", "", text, strlen(text));
    pthread_mutex_unlock(&turn);
}

/* -- which calls, and what becomes of them ------------------------------------------------------------------------ */

static int is_below(const char *path) {
    size_t size = strlen(prefix);
    if (size == 1) /* all there is */
        return path[0] == '/';
    return !strncmp(path, prefix, size) && (path[size] == '/' || path[size] == 0);
}

/* Put the path of an open file, or of a path that is relative to one, into `whole`; say whether it is ours. */
static int ours(int folder, const char *path, char *whole) {
    if (!prefix[0])
        return 0;
    int before = errno;
    size_t size = 0;
    if (!path || path[0] != '/') {
        char link[64];
        if (folder == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t read = readlink(link, whole, PATH_MAX - 1);
        size = read < 0 ? 0 : read;
        if (path && size)
            whole[size++] = '/';
    }
    snprintf(whole + size, PATH_MAX - size, "%s", path ? path : "");
    errno = before;
    return is_below(whole);
}

/* Begin a call; say whether it has to fail (FAIL), to write less (SHORTEN, TEAR), or nothing. `end` follows. */
static int begin(int kind) {
    pthread_mutex_lock(&turn);
    counted_of[__builtin_ctz(kind)]++;
    if (!(kinds & kind))
        return COUNT;
    counted++;
    if (counted < first || counted > last)
        return COUNT;
    if (action == DIE || (action == TEAR && kind != WRITE))
        kill(getpid(), SIGKILL);
    if (action == FAIL)
        errno = number, met++;
    return action;
}

static void end(void) { pthread_mutex_unlock(&turn); }

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

/* -- writing ------------------------------------------------------------------------------------------------------ */

static ssize_t written(int fd, const struct iovec *parts, int count, off_t offset, const char *path) {
    NEXT(pwritev);
    __typeof__(&writev) append = (__typeof__(&writev))dlsym(RTLD_NEXT, "writev");
    struct iovec less = {parts[0].iov_base, parts[0].iov_len > 1 ? parts[0].iov_len / 2 : parts[0].iov_len};
    int what = begin(WRITE);
    ssize_t result = -1;
    if (what != FAIL) {
        if (what == SHORTEN || what == TEAR)
            parts = &less, count = 1, met++;
        result = offset < 0 ? append(fd, parts, count) : next(fd, parts, count, offset);
        if (what == TEAR)
            kill(getpid(), SIGKILL);
        if (offset < 0 && result > 0)
            offset = lseek(fd, 0, SEEK_CUR) - result;
    }
    ssize_t left = result;
    for (int part = 0; left > 0; part++) {
        size_t size = parts[part].iov_len < (size_t)left ? parts[part].iov_len : (size_t)left;
        note(WRITE, inode_of(fd), offset, path, "", parts[part].iov_base, size);
        offset += size, left -= size;
    }
    end();
    return result;
}

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    char path[PATH_MAX];
    struct iovec part = {(void *)data, size};
    return ours(fd, NULL, path) ? written(fd, &part, 1, -1, path) : next(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    char path[PATH_MAX];
    return ours(fd, NULL, path) ? written(fd, parts, count, -1, path) : next(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    NEXT(pwrite64);
    char path[PATH_MAX];
    struct iovec part = {(void *)data, size};
    return ours(fd, NULL, path) ? written(fd, &part, 1, offset, path) : next(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) {
    NEXT(ftruncate64);
    char path[PATH_MAX];
    if (!ours(fd, NULL, path))
        return next(fd, size);
    int result = begin(TRUNCATE) == FAIL ? -1 : next(fd, size);
    if (!result)
        note(TRUNCATE, inode_of(fd), size, path, "", "", 0);
    end();
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*next)(int)) {
    char path[PATH_MAX];
    if (!ours(fd, NULL, path))
        return next(fd);
    int result = begin(SYNC) == FAIL ? -1 : next(fd);
    if (!result)
        note(SYNC, inode_of(fd), 0, path, "", "", 0);
    end();
    return result;
}

int fsync(int fd) { NEXT(fsync); return synced(fd, next); }
int fdatasync(int fd) { NEXT(fdatasync); return synced(fd, next); }

/* -- opening ------------------------------------------------------------------------------------------------------ */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    NEXT(openat);
    char whole[PATH_MAX];
    if (!ours(folder, path, whole))
        return next(folder, path, flags, mode);
    int is_there = inode_at(whole) != 0, makes = (flags & O_CREAT) && !is_there, cuts = (flags & O_TRUNC) && is_there;
    int result = begin(makes || cuts ? CREATE : OPEN) == FAIL ? -1 : next(folder, path, flags, mode);
    if (result >= 0 && makes)
        note(CREATE, inode_of(result), 0, whole, "", "", 0);
    if (result >= 0 && cuts)
        note(TRUNCATE, inode_of(result), 0, whole, "", "", 0);
    end();
    return result;
}

#define MODE                                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return opened(folder, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return opened(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return opened(folder, path, flags, 0); }

/* -- names -------------------------------------------------------------------------------------------------------- */

int renameat(int from, const char *source, int to, const char *target) {
    NEXT(renameat);
    char was[PATH_MAX], becomes[PATH_MAX];
    if (!ours(from, source, was) || !ours(to, target, becomes))
        return next(from, source, to, target);
    int result = begin(RENAME) == FAIL ? -1 : next(from, source, to, target);
    if (!result)
        note(RENAME, inode_at(becomes), 0, was, becomes, "", 0);
    end();
    return result;
}

int rename(const char *source, const char *target) { return renameat(AT_FDCWD, source, AT_FDCWD, target); }

int linkat(int from, const char *source, int to, const char *target, int flags) {
    NEXT(linkat);
    char was[PATH_MAX], becomes[PATH_MAX];
    if (!ours(from, source, was) || !ours(to, target, becomes))
        return next(from, source, to, target, flags);
    int result = begin(LINK) == FAIL ? -1 : next(from, source, to, target, flags);
    if (!result)
        note(LINK, inode_at(becomes), 0, was, becomes, "", 0);
    end();
    return result;
}

int link(const char *source, const char *target) { return linkat(AT_FDCWD, source, AT_FDCWD, target, 0); }

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    char whole[PATH_MAX];
    if (!ours(folder, path, whole))
        return next(folder, path, flags);
    int result = begin(REMOVE) == FAIL ? -1 : next(folder, path, flags);
    if (!result)
        note(REMOVE, 0, 0, whole, "", "", 0);
    end();
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
    NEXT(mkdirat);
    char whole[PATH_MAX];
    if (!ours(folder, path, whole))
        return next(folder, path, mode);
    int result = begin(MKDIR) == FAIL ? -1 : next(folder, path, mode);
    if (!result)
        note(MKDIR, inode_at(whole), 0, whole, "", "", 0);
    end();
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
