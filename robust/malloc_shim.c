// Preloaded into a process that runs out of memory on purpose: the k-th allocation of a thread fails; all are counted.
// Calls and failures are per thread, so that the threads of libraries do not matter.
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

#define PER_THREAD static __thread __attribute__((tls_model("initial-exec")))
PER_THREAD long countdown = 0;  // 0: nothing fails
PER_THREAD long n_asked = 0;

// The k-th call from now on fails, once.
void robust_fail_at(long k) { countdown = k; }
// What is left of it: 0 when the call has failed.
long robust_countdown(void) { return countdown; }
long robust_asked(void) { return n_asked; }

static int fails(void) {
  ++n_asked;
  if (countdown == 0 || --countdown != 0) return 0;
  errno = ENOMEM;
  return 1;
}

void* malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void* calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void* realloc(void* old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void* memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void** out, size_t alignment, size_t size) {
  if (fails()) return ENOMEM;
  *out = __libc_memalign(alignment, size);
  return *out == NULL ? ENOMEM : 0;
}
