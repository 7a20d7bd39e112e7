// Work without the GIL, in a thread that may outlive the interpreter.
//
// CPython before 3.14 ends a daemon thread that asks for the GIL during shutdown by pthread_exit, which glibc turns into
// an unwinding of the C++ stack; on its way stands a destructor or a noexcept function, and the process aborts instead
// of exiting. Such a thread waits here for the end of the process, as 3.14 makes it do.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace bidml {

class GilReleased {
 public:
  GilReleased() noexcept : state_(PyEval_SaveThread()) {}
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;
  ~GilReleased() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // nothing else is thrown by C code than the unwinding of this thread
      for (;;) pause();
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace bidml
