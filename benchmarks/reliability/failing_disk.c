/* Makes one write below a folder fail, or all from one on: LD_PRELOAD this library into a process and its children.

   Counted is every call of the C library that changes a file or a folder: what Python, Rust and C++ writers alike go
   through. What stands in FAIL_CONTROL, mapped by all processes, says which of them fails:

     int64 armed, count, at (from 1; 0: none), error (errno), forever, failed

   FAIL_UNDER is the folder; FAIL_LOG gets a line "number call path" for every call that fails, or for all if `at` is 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control { int64_t armed, count, at, error, forever, failed; };
static struct control *control;
static const char *under;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAIL_CONTROL");
  under = getenv("FAIL_UNDER");
  if (!path || !under) return;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR, 0);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (mapped != MAP_FAILED) control = mapped;
}

static void note(int64_t number, const char *call, const char *path) {
  const char *log = getenv("FAIL_LOG");
  char line[PATH_MAX + 64];
  if (!log) return;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0644);
  if (fd < 0) return;
  int length = snprintf(line, sizeof line, "%lld %s %s\n", (long long)number, call, path);
  syscall(SYS_write, fd, line, (size_t)length);
  syscall(SYS_close, fd);
}

static int fails(const char *call, const char *path) {
  if (!control || !control->armed || strncmp(path, under, strlen(under))) return 0;
  int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
  int hit = control->at && (number == control->at || (control->forever && number > control->at));
  if (hit || !control->at) note(number, call, path);
  if (!hit) return 0;
  __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
  errno = (int)control->error;
  return 1;
}

static const char *at_folder(int folder, const char *path, char *buffer) {
  char link[64];
  if (!path) return "";
  if (path[0] == '/') return path;
  if (folder == AT_FDCWD) {
    if (syscall(SYS_getcwd, buffer, (size_t)PATH_MAX) < 0) return path;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, (size_t)PATH_MAX - 1);
    if (length < 0) return path;
    buffer[length] = 0;
  }
  size_t length = strlen(buffer);
  snprintf(buffer + length, PATH_MAX - length, "/%s", path);
  return buffer;
}

static int path_fails(const char *call, int folder, const char *path) {
  char buffer[PATH_MAX];
  return control && fails(call, at_folder(folder, path, buffer));
}

static int file_fails(const char *call, int fd) {
  char link[64], buffer[PATH_MAX];
  if (!control || !control->armed) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, sizeof buffer - 1);
  if (length < 0) return 0;
  buffer[length] = 0;
  return fails(call, buffer);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
    REAL(name); \
    return WRITES(flags) && path_fails("open", AT_FDCWD, path) ? -1 : real(path, flags, mode); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
    REAL(name); \
    return WRITES(flags) && path_fails("open", folder, path) ? -1 : real(folder, path, flags, mode); }
OPENAT(openat)
OPENAT(openat64)
#define FOPEN(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); \
    return strpbrk(mode, "wa+") && path_fails("open", AT_FDCWD, path) ? NULL : real(path, mode); }
FOPEN(fopen)
FOPEN(fopen64)

#define ON_FILE(type, name, parameters, ...) \
  type name parameters { REAL(name); return file_fails(#name, fd) ? -1 : real(__VA_ARGS__); }
ON_FILE(ssize_t, write, (int fd, const void *data, size_t size), fd, data, size)
ON_FILE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_FILE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_FILE(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
ON_FILE(int, ftruncate, (int fd, off_t size), fd, size)
ON_FILE(int, ftruncate64, (int fd, off64_t size), fd, size)
ON_FILE(int, fsync, (int fd), fd)
ON_FILE(int, fdatasync, (int fd), fd)
ON_FILE(ssize_t, copy_file_range, (int in, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags), in, from, fd, to, size, flags)
ON_FILE(ssize_t, sendfile, (int fd, int in, off_t *from, size_t size), fd, in, from, size)
ON_FILE(ssize_t, sendfile64, (int fd, int in, off64_t *from, size_t size), fd, in, from, size)

#define ON_PATH(name, call, parameters, target, folder, ...) \
  int name parameters { REAL(name); return path_fails(call, folder, target) ? -1 : real(__VA_ARGS__); }
ON_PATH(rename, "rename", (const char *from, const char *to), to, AT_FDCWD, from, to)
ON_PATH(renameat, "rename", (int of, const char *from, int in, const char *to), to, in, of, from, in, to)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), path, AT_FDCWD, path, mode)
ON_PATH(mkdirat, "mkdir", (int in, const char *path, mode_t mode), path, in, in, path, mode)
ON_PATH(link, "link", (const char *from, const char *to), to, AT_FDCWD, from, to)
ON_PATH(linkat, "link", (int of, const char *from, int in, const char *to, int flags), to, in, of, from, in, to, flags)
ON_PATH(symlink, "symlink", (const char *from, const char *to), to, AT_FDCWD, from, to)
ON_PATH(symlinkat, "symlink", (const char *from, int in, const char *to), to, in, from, in, to)
ON_PATH(unlink, "unlink", (const char *path), path, AT_FDCWD, path)
ON_PATH(unlinkat, "unlink", (int in, const char *path, int flags), path, in, in, path, flags)
ON_PATH(rmdir, "rmdir", (const char *path), path, AT_FDCWD, path)
