// Preloaded into a process: makes the n-th call that touches a file under FAULT_PATH fail.
//
// FAULT_PATH  folder whose files count
// FAULT_CALL  which call fails, counted from 1; 0: none
// FAULT_ERROR errno of the failure
// FAULT_LOG   file that receives the number of calls when the process ends (or fails)
// The calls are open, read, write, fsync, rename, mkdir and unlink, in whichever form libuv makes them. A failing write
// writes half of its bytes first where it can, as a full disk does.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int calls;
static atomic_uchar watched[65536];

static const char* folder(void) { return getenv("FAULT_PATH"); }
static int underFolder(const char* path) { return folder() && path && strstr(path, folder()) != NULL; }
static int isWatched(int fd) { return fd >= 0 && fd < 65536 && watched[fd]; }

static void report(void) {
  const char* log = getenv("FAULT_LOG");
  if (!log) return;
  FILE* file = fopen(log, "w");
  if (!file) return;
  fprintf(file, "%d\n", atomic_load(&calls));
  fclose(file);
}
__attribute__((destructor)) static void atEnd(void) { report(); }

// Whether this call is the one that fails; sets errno.
static int fails(void) {
  const char* which = getenv("FAULT_CALL");
  const int number = atomic_fetch_add(&calls, 1) + 1;
  if (!which || number != atoi(which)) return 0;
  errno = atoi(getenv("FAULT_ERROR"));
  return 1;
}

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

static int opened(int fd, const char* path) {
  if (fd >= 0 && fd < 65536) watched[fd] = (unsigned char)underFolder(path);
  return fd;
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = va_arg(arguments, int);
  va_end(arguments);
  if (underFolder(path) && fails()) return -1;
  return opened(NEXT(int, "open64", const char*, int, ...)(path, flags, mode), path);
}
int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = va_arg(arguments, int);
  va_end(arguments);
  if (underFolder(path) && fails()) return -1;
  return opened(NEXT(int, "open", const char*, int, ...)(path, flags, mode), path);
}
ssize_t write(int fd, const void* data, size_t size) {
  if (isWatched(fd) && fails()) {
    const int error = errno;
    if (size > 1) NEXT(ssize_t, "write", int, const void*, size_t)(fd, data, size / 2);
    errno = error;
    return -1;
  }
  return NEXT(ssize_t, "write", int, const void*, size_t)(fd, data, size);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  if (isWatched(fd) && fails()) return -1;
  return NEXT(ssize_t, "pwrite64", int, const void*, size_t, off64_t)(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
  if (isWatched(fd) && fails()) return -1;
  return NEXT(ssize_t, "writev", int, const struct iovec*, int)(fd, parts, count);
}
ssize_t read(int fd, void* data, size_t size) {
  if (isWatched(fd) && fails()) return -1;
  return NEXT(ssize_t, "read", int, void*, size_t)(fd, data, size);
}
ssize_t pread64(int fd, void* data, size_t size, off64_t at) {
  if (isWatched(fd) && fails()) return -1;
  return NEXT(ssize_t, "pread64", int, void*, size_t, off64_t)(fd, data, size, at);
}
int fsync(int fd) {
  if (isWatched(fd) && fails()) return -1;
  return NEXT(int, "fsync", int)(fd);
}
int fdatasync(int fd) {
  if (isWatched(fd) && fails()) return -1;
  return NEXT(int, "fdatasync", int)(fd);
}
int rename(const char* from, const char* to) {
  if (underFolder(to) && fails()) return -1;
  return NEXT(int, "rename", const char*, const char*)(from, to);
}
int mkdir(const char* path, mode_t mode) {
  if (underFolder(path) && fails()) return -1;
  return NEXT(int, "mkdir", const char*, mode_t)(path, mode);
}
int unlink(const char* path) {
  if (underFolder(path) && fails()) return -1;
  return NEXT(int, "unlink", const char*)(path);
}
