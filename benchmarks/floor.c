// The least that reading a request from Python's dicts costs: the lookups of bid_models' 31 features and of the auction's
// terms, by the public function, keys interned; each value found is looked at, nothing is done with it.
#include <Python.h>

static const char *const kNames[] = {
    "cur", "at", "imp", "app", "device", "user", "ext",                                            // the request: 0
    "bidfloor", "bidfloorcur", "pmp", "tagid", "instl", "video", "banner", "ext",                  // imp[0]: 7
    "w", "h", "pos", "format",                                                                     // banner: 15
    "viewability", "bundle", "publisher", "id",                                                    // imp.ext, app: 19
    "make", "model", "os", "osv", "language", "carrier", "w", "h", "pxratio", "devicetype", "connectiontype", "geo",
    "country", "region", "city", "lat", "lon", "utcoffset",                                        // device: 23, geo: 35
    "gender", "yob", "exchange", "session_depth", "timestamp"};                                    // user: 41, ext: 43
enum { kKeys = sizeof kNames / sizeof *kNames };
static PyObject *keys[kKeys];
static volatile Py_ssize_t n_texts;

static PyObject *get(PyObject *dict, int key) {
  PyObject *value = dict != NULL && PyDict_Check(dict) ? PyDict_GetItemWithError(dict, keys[key]) : NULL;
  if (value != NULL) n_texts += Py_TYPE(value) == &PyUnicode_Type;
  return value;
}

static PyObject *lookups(PyObject *module, PyObject *request) {
  (void)module;
  PyObject *top[7];
  for (int k = 0; k < 7; ++k) top[k] = get(request, k);
  PyObject *imp = top[2] != NULL && PyList_Check(top[2]) && PyList_GET_SIZE(top[2]) ? PyList_GET_ITEM(top[2], 0) : NULL;
  for (int k = 7; k < 13; ++k) get(imp, k);
  PyObject *banner = get(imp, 13);
  PyObject *imp_ext = get(imp, 14);
  for (int k = 15; k < 19; ++k) get(banner, k);
  get(imp_ext, 19);
  get(top[3], 20);
  get(get(top[3], 21), 22);
  for (int k = 23; k < 34; ++k) get(top[4], k);
  PyObject *geo = get(top[4], 34);
  for (int k = 35; k < 41; ++k) get(geo, k);
  for (int k = 41; k < 43; ++k) get(top[5], k);
  for (int k = 43; k < kKeys; ++k) get(top[6], k);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"lookups", lookups, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "floor", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_floor(void) {
  for (int k = 0; k < kKeys; ++k) {
    if ((keys[k] = PyUnicode_InternFromString(kNames[k])) == NULL) return NULL;
  }
  return PyModule_Create(&definition);
}
