/* A disk that fails now and then to sync: loaded in front of the C library, it fails so many syncs of the files that it
 * is told of, and notes every sync and every removal, so that a test sees which file was written anew. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char failing[4096];
static int left, failure, notebook = -1;

void fail_syncs(const char *pattern, int count, int error, const char *notes)
{
    pthread_mutex_lock(&turn);
    strncpy(failing, pattern, sizeof failing - 1);
    left = count;
    failure = error;
    if (notebook < 0)
        notebook = open(notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pthread_mutex_unlock(&turn);
}

static void note(const char *what, const char *path)
{
    char line[4400];
    int error = errno, length = snprintf(line, sizeof line, "%s %s\n", what, path);
    if (notebook >= 0 && write(notebook, line, length) != length)
        _exit(99);
    errno = error;
}

int fsync(int fd)
{
    char link[64], path[4096] = "";
    int fails;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (notebook < 0 || readlink(link, path, sizeof path - 1) < 0)
        return REAL("fsync", int (*)(int))(fd);
    pthread_mutex_lock(&turn);
    fails = left > 0 && !fnmatch(failing, path, 0);
    left -= fails;
    note(fails ? "failed" : "synced", path);
    pthread_mutex_unlock(&turn);
    if (fails) {
        errno = failure;
        return -1;
    }
    return REAL("fsync", int (*)(int))(fd);
}

int unlink(const char *path)
{
    int result = REAL("unlink", int (*)(const char *))(path);
    if (!result)
        note("removed", path);
    return result;
}

int unlinkat(int folder, const char *path, int flags)
{
    int result = REAL("unlinkat", int (*)(int, const char *, int))(folder, path, flags);
    if (!result)
        note("removed", path);
    return result;
}
