// C++ that runs Python code, in threads that the interpreter does not wait for.
//
// A constructor that reads properties may give the GIL away between any two of them. CPython before 3.14 ends a daemon
// thread that asks for it again during shutdown by pthread_exit, and the unwinding meets nanobind's handlers, which
// rethrow an exception that is none, and destructors that need the GIL. So the end waits for what has begun, and what
// would begin after it is an error. Work that releases the GIL itself needs none of this: gil.h.
#pragma once

#include <Python.h>
#include <nanobind/nanobind.h>
#include <pthread.h>
#include <unistd.h>

#include <stdexcept>

namespace bidml {

class UnendedScope {  // all of it under the GIL
 public:
  UnendedScope() {
    if (ended_ && !pthread_equal(pthread_self(), ender_))
      throw std::runtime_error("the interpreter ends; nothing is loaded any more");
    ++n_begun_;
  }
  UnendedScope(const UnendedScope&) = delete;
  UnendedScope& operator=(const UnendedScope&) = delete;
  ~UnendedScope() { --n_begun_; }

  // Before the module is used; an exit handler of Python's calls `end`.
  static void forget_other_threads_after_fork() {
    pthread_atfork(nullptr, nullptr, [] { n_begun_ = 0; });
  }

  static void end() {
    ended_ = true;
    ender_ = pthread_self();
    for (int ms = 0; n_begun_ > 0 && ms < kLongestWaitMs; ++ms) {
      Py_BEGIN_ALLOW_THREADS;
      usleep(1000);
      Py_END_ALLOW_THREADS;
    }
  }

 private:
  static constexpr int kLongestWaitMs = 10'000;  // a load takes a second at most; one that is stuck holds no process

  inline static int n_begun_{};
  inline static bool ended_{};
  inline static pthread_t ender_{};
};

}  // namespace bidml
