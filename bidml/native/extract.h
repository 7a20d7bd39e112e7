// From an OpenRTB request, as Python's JSON decoders build it, to the raw slots of the feature spec.
//
// The spec's paths are compiled once into a list of containers (objects), parents first, each with the fields read from
// it. Extraction opens each container once and reads each field once. One extractor serves training and bidding.
//
// Types are strict: a category is text, or an integer in decimal; a number is an int or a finite float; a bool is
// neither. Whatever else is found is missing ("" or NaN). Nothing raises, and no foreign code can leave an error
// behind: a key whose __eq__ raises is a key that is not there. Containers are held by reference while they are read,
// because a lookup may run foreign code. Text that is not ASCII is encoded on the stack; text longer than any key of
// the model cannot match and is not read.
//
// Sink: void category(int slot, const char* utf8, size_t size); void number(int slot, double).
#pragma once

#include <Python.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bidml {

class Reference {  // owns one strong reference, or none
 public:
  Reference() = default;
  explicit Reference(PyObject* owned) : object_(owned) {}
  Reference(Reference&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  Reference& operator=(Reference&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { Py_XDECREF(object_); }
  PyObject* get() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

inline Reference item(PyObject* dict, PyObject* key) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* owned = nullptr;
  if (PyDict_GetItemRef(dict, key, &owned) < 0) PyErr_Clear();
  return Reference(owned);
#else
  PyObject* found = PyDict_GetItemWithError(dict, key);
  if (!found) {
    if (PyErr_Occurred()) PyErr_Clear();
    return {};
  }
  return Reference(Py_NewRef(found));
#endif
}

inline Reference list_item(PyObject* list, Py_ssize_t index) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* owned = PyList_GetItemRef(list, index);
  if (!owned) PyErr_Clear();
  return Reference(owned);
#else
  return index < PyList_GET_SIZE(list) ? Reference(Py_NewRef(PyList_GET_ITEM(list, index))) : Reference();
#endif
}

inline Reference dict_item(PyObject* dict, PyObject* key) noexcept {
  if (!dict) return {};
  Reference found = item(dict, key);
  return found && PyDict_Check(found.get()) ? std::move(found) : Reference();
}

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// An int or a finite float, else NaN. An int beyond double's range is missing.
inline double number_of(PyObject* value) noexcept {
  if (!value) return kMissing;
  if (PyFloat_Check(value)) {
    const double x = PyFloat_AS_DOUBLE(value);
    return std::isfinite(x) ? x : kMissing;
  }
  if (PyLong_Check(value) && !PyBool_Check(value)) {
    const double x = PyLong_AsDouble(value);
    if (x == -1.0 && PyErr_Occurred()) {
      PyErr_Clear();
      return kMissing;
    }
    return x;
  }
  return kMissing;
}

constexpr size_t kLongestText = 1024;  // bytes of UTF-8; longer text matches no key

// Text as UTF-8 in `buffer` or in the object itself; no allocation, whatever the object.
class Text {
 public:
  std::string_view of(PyObject* value) noexcept {
    if (!value) return {};
    if (PyUnicode_Check(value)) return of_text(value);
    if (PyLong_Check(value) && !PyBool_Check(value)) return of_integer(value);
    return {};
  }

 private:
  static constexpr std::string_view kUnmatchable{"\xff", 1};  // not UTF-8: no key equals it

  std::string_view of_text(PyObject* value) noexcept {
    const Py_ssize_t length = PyUnicode_GET_LENGTH(value);
    if (length > static_cast<Py_ssize_t>(kLongestText)) return kUnmatchable;
    if (PyUnicode_IS_COMPACT_ASCII(value))
      return {reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(value)), static_cast<size_t>(length)};
    const int kind = PyUnicode_KIND(value);
    const void* data = PyUnicode_DATA(value);
    size_t n = 0;
    for (Py_ssize_t i = 0; i < length; ++i) {
      const Py_UCS4 c = PyUnicode_READ(kind, data, i);
      if (n + 4 > buffer_.size() || (c >= 0xD800 && c < 0xE000)) return kUnmatchable;
      if (c < 0x80) {
        put(n, c);
      } else if (c < 0x800) {
        put(n, 0xC0 | (c >> 6));
        put(n, 0x80 | (c & 0x3F));
      } else if (c < 0x10000) {
        put(n, 0xE0 | (c >> 12));
        put(n, 0x80 | ((c >> 6) & 0x3F));
        put(n, 0x80 | (c & 0x3F));
      } else {
        put(n, 0xF0 | (c >> 18));
        put(n, 0x80 | ((c >> 12) & 0x3F));
        put(n, 0x80 | ((c >> 6) & 0x3F));
        put(n, 0x80 | (c & 0x3F));
      }
    }
    return {buffer_.data(), n};
  }

  std::string_view of_integer(PyObject* value) noexcept {
    int overflow = 0;
    const long long x = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || (x == -1 && PyErr_Occurred())) {
      PyErr_Clear();
      return kUnmatchable;
    }
    const auto end = std::to_chars(buffer_.data(), buffer_.data() + buffer_.size(), x).ptr;
    return {buffer_.data(), static_cast<size_t>(end - buffer_.data())};
  }

  void put(size_t& n, Py_UCS4 byte) noexcept { buffer_[n++] = static_cast<char>(byte); }

  std::array<char, kLongestText + 8> buffer_;
};

enum class Derived { hour_of_day, weekday, banner_size, app_or_site, inventory, ad_format, os_version_major };

inline Derived derived_of(const std::string& name) {
  static constexpr std::pair<const char*, Derived> kNames[] = {
      {"hour_of_day", Derived::hour_of_day},   {"weekday", Derived::weekday},
      {"banner_size", Derived::banner_size},   {"app_or_site", Derived::app_or_site},
      {"inventory", Derived::inventory},       {"ad_format", Derived::ad_format},
      {"os_version_major", Derived::os_version_major},
  };
  for (const auto& [known, derived] : kNames)
    if (name == known) return derived;
  throw std::invalid_argument("a derived feature is known; found " + name + "; update bidml");
}

class Extractor {
 public:
  struct Source {
    std::string path;  // OpenRTB path, or derived.<name>; line-item features are not given
    bool is_category;
    int slot;
  };

  Extractor(const std::vector<Source>& sources, const std::string& timestamp_ms_path) {
    for (const Source& source : sources) {
      if (source.path.rfind("derived.", 0) == 0)
        derived_.push_back({derived_of(source.path.substr(8)), source.slot});
      else
        add(source);
    }
    for (const DerivedField& d : derived_) {
      needs_time_ |= d.kind == Derived::hour_of_day || d.kind == Derived::weekday;
      needs_size_ |= d.kind == Derived::banner_size;
    }
    if (containers_.size() > kMostContainers)
      throw std::invalid_argument("a spec reads at most 64 objects of a request; found " +
                                  std::to_string(containers_.size()) + "; drop some features");
    timestamp_ = keys_of(timestamp_ms_path);
  }

  // `request` and `imp` are dicts and stay alive during the call.
  template <class Sink>
  void operator()(PyObject* request, PyObject* imp, Sink&& sink) const noexcept {
    Reference opened[kMostContainers];
    Text text;
    for (size_t i = 0; i < containers_.size(); ++i) {
      const Container& c = containers_[i];
      PyObject* object = i == kRoot ? request : i == kImp ? imp : nullptr;
      if (!object && c.parent >= 0) {
        PyObject* parent = c.parent == kRoot ? request : c.parent == kImp ? imp : opened[c.parent].get();
        opened[i] = dict_item(parent, c.key.get());
        object = opened[i].get();
      }
      for (const Field& field : c.fields) {
        const Reference value = object ? item(object, field.key.get()) : Reference();
        if (field.is_category) {
          const std::string_view found = text.of(value.get());
          sink.category(field.slot, found.data(), found.size());
        } else {
          sink.number(field.slot, number_of(value.get()));
        }
      }
    }
    if (!derived_.empty()) derive(request, imp, sink);
  }

 private:
  static constexpr size_t kMostContainers = 64;
  static constexpr int kRoot = 0;
  static constexpr int kImp = 1;

  struct Field {
    Reference key;
    bool is_category;
    int slot;
  };
  struct Container {
    std::string path;
    int parent;
    Reference key;
    std::vector<Field> fields;
  };
  struct DerivedField {
    Derived kind;
    int slot;
  };

  static Reference interned(const std::string& text) {
    PyObject* key = PyUnicode_InternFromString(text.c_str());
    if (!key) throw std::bad_alloc();
    return Reference(key);
  }

  static std::vector<std::string> split(const std::string& path) {
    std::vector<std::string> parts;
    for (size_t begin = 0;;) {
      const size_t dot = path.find('.', begin);
      parts.push_back(path.substr(begin, dot - begin));
      if (dot == std::string::npos) return parts;
      begin = dot + 1;
    }
  }

  static std::vector<Reference> keys_of(const std::string& path) {
    std::vector<Reference> keys;
    for (const std::string& part : split(path)) keys.push_back(interned(part));
    return keys;
  }

  int container(const std::string& path, int parent, const std::string& key) {
    for (size_t i = 0; i < containers_.size(); ++i)
      if (containers_[i].path == path) return static_cast<int>(i);
    containers_.push_back({path, parent, interned(key), {}});
    return static_cast<int>(containers_.size()) - 1;
  }

  void add(const Source& source) {
    if (containers_.empty()) {
      container("", -1, "");
      container("imp", -1, "imp");
    }
    const std::vector<std::string> parts = split(source.path);
    int at = kRoot;
    std::string path;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      path += path.empty() ? parts[i] : "." + parts[i];
      at = container(path, at, parts[i]);
    }
    containers_[at].fields.push_back({interned(parts.back()), source.is_category, source.slot});
  }

  struct Clock {
    double hour_of_day = kMissing, weekday = kMissing;
  };

  Clock local_time(PyObject* request) const noexcept {
    double seconds = kMissing;
    Reference held;
    PyObject* at = request;
    for (size_t i = 0; i + 1 < timestamp_.size() && at; ++i) {
      held = dict_item(at, timestamp_[i].get());
      at = held.get();
    }
    if (at) seconds = number_of(item(at, timestamp_.back().get()).get()) / 1000.0;
    if (!(seconds >= 0.0 && seconds < 1e11)) {
      timespec now;
      clock_gettime(CLOCK_REALTIME, &now);
      seconds = static_cast<double>(now.tv_sec);
    }
    const Reference device = dict_item(request, names_.device.get());
    const Reference geo = dict_item(device.get(), names_.geo.get());
    const double offset_minutes = geo ? number_of(item(geo.get(), names_.utcoffset.get()).get()) : 0.0;
    if (offset_minutes >= -1440.0 && offset_minutes <= 1440.0) seconds += 60.0 * offset_minutes;
    const double hours = std::floor(seconds / 3600.0);
    const double days = std::floor(hours / 24.0);
    return {hours - 24.0 * days, std::fmod(std::fmod(days + 3.0, 7.0) + 7.0, 7.0)};  // 1970-01-01 was a Thursday
  }

  // "320x50" from the banner, else its first format, else the video; "" when there is none.
  std::string_view banner_size(PyObject* imp, std::array<char, 48>& buffer) const noexcept {
    const Reference banner = dict_item(imp, names_.banner.get());
    if (banner) {
      const std::string_view size = size_of(banner.get(), buffer);
      if (!size.empty()) return size;
      const Reference formats = item(banner.get(), names_.format.get());
      if (formats && PyList_Check(formats.get())) {
        const Reference first = list_item(formats.get(), 0);
        if (first && PyDict_Check(first.get())) return size_of(first.get(), buffer);
      }
      return {};
    }
    const Reference video = dict_item(imp, names_.video.get());
    return video ? size_of(video.get(), buffer) : std::string_view();
  }

  std::string_view size_of(PyObject* object, std::array<char, 48>& buffer) const noexcept {
    const double w = number_of(item(object, names_.w.get()).get());
    const double h = number_of(item(object, names_.h.get()).get());
    constexpr double kLargest = 1e6;
    if (!(w > 0.0 && h > 0.0 && w <= kLargest && h <= kLargest && w == std::floor(w) && h == std::floor(h))) return {};
    char* end = std::to_chars(buffer.data(), buffer.data() + 16, static_cast<long>(w)).ptr;
    *end++ = 'x';
    end = std::to_chars(end, end + 16, static_cast<long>(h)).ptr;
    return {buffer.data(), static_cast<size_t>(end - buffer.data())};
  }

  static double leading_integer(std::string_view text) noexcept {
    double x = kMissing;
    for (size_t i = 0; i < text.size() && i < 6 && text[i] >= '0' && text[i] <= '9'; ++i)
      x = (i == 0 ? 0.0 : 10.0 * x) + (text[i] - '0');
    return x;
  }

  template <class Sink>
  void derive(PyObject* request, PyObject* imp, Sink&& sink) const noexcept {
    const Clock clock = needs_time_ ? local_time(request) : Clock();
    std::array<char, 48> size_buffer;
    const std::string_view size = needs_size_ ? banner_size(imp, size_buffer) : std::string_view();
    const auto put = [&](int slot, std::string_view value) { sink.category(slot, value.data(), value.size()); };
    for (const DerivedField& field : derived_) {
      switch (field.kind) {
        case Derived::hour_of_day: sink.number(field.slot, clock.hour_of_day); break;
        case Derived::weekday: sink.number(field.slot, clock.weekday); break;
        case Derived::banner_size: put(field.slot, size); break;
        case Derived::app_or_site:
          put(field.slot, dict_item(request, names_.app.get())    ? "app"
                          : dict_item(request, names_.site.get()) ? "site"
                                                                  : "");
          break;
        case Derived::inventory: {
          const Reference app = dict_item(request, names_.app.get());
          const Reference site = app ? Reference() : dict_item(request, names_.site.get());
          const Reference value = app    ? item(app.get(), names_.bundle.get())
                                  : site ? item(site.get(), names_.domain.get())
                                         : Reference();
          Text text;
          put(field.slot, text.of(value.get()));
          break;
        }
        case Derived::ad_format: {
          std::string_view format;
          for (const Reference* name : {&names_.banner, &names_.video, &names_.audio, &names_.native})
            if (format.empty() && dict_item(imp, name->get()))
              format = {static_cast<const char*>(PyUnicode_DATA(name->get())),
                        static_cast<size_t>(PyUnicode_GET_LENGTH(name->get()))};
          put(field.slot, format);
          break;
        }
        case Derived::os_version_major: {
          const Reference device = dict_item(request, names_.device.get());
          const Reference value = device ? item(device.get(), names_.osv.get()) : Reference();
          Text text;
          sink.number(field.slot,
                      value && PyUnicode_Check(value.get()) ? leading_integer(text.of(value.get())) : kMissing);
          break;
        }
      }
    }
  }

  struct Names {
    Reference device = interned("device"), geo = interned("geo"), utcoffset = interned("utcoffset"),
              banner = interned("banner"), format = interned("format"), video = interned("video"),
              audio = interned("audio"), native = interned("native"), w = interned("w"), h = interned("h"),
              app = interned("app"), site = interned("site"), bundle = interned("bundle"),
              domain = interned("domain"), osv = interned("osv");
  };

  Names names_;
  std::vector<Container> containers_;
  std::vector<DerivedField> derived_;
  std::vector<Reference> timestamp_;
  bool needs_time_ = false;
  bool needs_size_ = false;
};

}  // namespace bidml
