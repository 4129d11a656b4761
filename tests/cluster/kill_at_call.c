/* Kills a process before the system call with a given number, counted over all of its threads.
 *
 * Preloaded (LD_PRELOAD). While the file that KILL_AT_CALL names exists, the process that it names counts calls. Its
 * lines are: that process, the number to be killed at, and a word that begins a new count when it changes; the names of
 * the calls that count, each with a space behind it; then the paths that count, all when there are none. Each call that
 * is counted is added to the file with ".log" behind its name.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ORDER_BYTES = 8192, PATH_BYTES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last_word[64];
static int counted;

static int counts(const char *paths, const char *path) {
    size_t length = strlen(path);
    if (!*paths) return 1;
    for (const char *at = paths; *at; at = strchr(at, '\n') + 1) {
        if (strncmp(at, path, length) == 0 && at[length] == '\n') return 1;
        if (!strchr(at, '\n')) break;
    }
    return 0;
}

static void note(const char *control, const char *call, const char *path) {
    char name[PATH_BYTES + 8], line[PATH_BYTES + 64];
    snprintf(name, sizeof name, "%s.log", control);
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, line, length) != length) abort();
    close(fd);
}

static void obey(const char *control, int fd, const char *call, const char *path) {
    struct stat about;
    if (fstat(fd, &about)) abort();
    if (!about.st_nlink) return;
    char order[ORDER_BYTES + 1], word[64], calls[256], wanted[64];
    ssize_t size = read(fd, order, ORDER_BYTES);
    if (size <= 0) return;
    order[size] = 0;
    int target, number, rest = 0;
    if (sscanf(order, "%d %d %63s\n%255[^\n]\n%n", &target, &number, word, calls, &rest) < 4 || !rest) abort();
    if (getpid() != target) return;
    snprintf(wanted, sizeof wanted, "%s ", call);
    if (!strstr(calls, wanted) || !counts(order + rest, path)) return;
    pthread_mutex_lock(&lock);
    if (strcmp(word, last_word)) {
        strcpy(last_word, word);
        counted = 0;
    }
    note(control, call, path);
    if (++counted == number) kill(getpid(), SIGKILL), pause();
    pthread_mutex_unlock(&lock);
}

static void before(const char *call, const char *path) {
    const char *control = getenv("KILL_AT_CALL");
    if (!control) return;
    int fd = open(control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    /* Who gave the order takes it back under the same lock, so it is never carried out after that. */
    while (flock(fd, LOCK_SH))
        if (errno != EINTR) abort();
    obey(control, fd, call, path);
    close(fd);
}

static void before_fd(const char *call, int fd) {
    char link[64], path[PATH_BYTES];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    before(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to) {
    before("rename", from);
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    before("unlink", path);
    return REAL(unlink)(path);
}

int fsync(int fd) {
    before_fd("fsync", fd);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    before_fd("fdatasync", fd);
    return REAL(fdatasync)(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    before_fd("pwrite", fd);
    return REAL(pwrite64)(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    before_fd("pwrite", fd);
    return REAL(pwrite)(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    before_fd("writev", fd);
    return REAL(writev)(fd, pieces, count);
}
