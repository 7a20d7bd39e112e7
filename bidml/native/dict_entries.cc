#include "dict_entries.h"

#include "read_dict.h"

namespace bidml {
namespace {

#if BIDML_DICT_ENTRIES

bool agrees(PyObject* dict) {
  if (!DictEntries::is_plain(dict)) return false;
  const DictEntries entries(dict);
  PyObject *key, *value;
  Py_ssize_t at = 0, n_seen = 0;
  size_t i = 0;
  while (PyDict_Next(dict, &at, &key, &value)) {
    while (i < entries.size() && entries.value(i) == nullptr) ++i;
    if (i == entries.size() || entries.key(i) != key || entries.value(i) != value) return false;
    if (entries.has_text_keys() && entries.is_small() && entries.find(WantedKey(key)) != i) return false;
    ++i;
    ++n_seen;
  }
  for (; i < entries.size(); ++i) {
    if (entries.value(i) != nullptr) return false;
  }
  const Reference absent(PyUnicode_FromString("no such key"));
  if (!absent) return false;
  if (entries.has_text_keys() && entries.is_small() &&
      entries.find(WantedKey(absent.get())) != DictEntries::kNowhere) {
    return false;
  }
  return n_seen == PyDict_Size(dict);
}

bool checked() {
  const Reference dict(PyDict_New());
  if (!dict) return false;
  bool good = true;
  for (long i = 0; good && i < 300; ++i) {
    const Reference key(PyUnicode_FromFormat("key %ld", i)), value(PyLong_FromLong(i));
    good = key && value && PyDict_SetItem(dict.get(), key.get(), value.get()) == 0;
    if (good && i % 7 == 3) good = PyDict_DelItem(dict.get(), key.get()) == 0;
    if (good && (i < 20 || i % 60 == 0)) good = agrees(dict.get()) && DictEntries(dict.get()).has_text_keys();
  }
  const Reference number(PyLong_FromLong(7));
  good = good && number && PyDict_SetItem(dict.get(), number.get(), number.get()) == 0 && agrees(dict.get()) &&
         !DictEntries(dict.get()).has_text_keys();
  if (PyErr_Occurred()) PyErr_Clear();
  return good;
}

#endif

}  // namespace

bool entries_are_readable() {
#if BIDML_DICT_ENTRIES
  static const bool readable = checked();
  return readable;
#else
  return false;
#endif
}

}  // namespace bidml
