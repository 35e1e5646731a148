/* The C core as the Python module edge_runtime.native._core. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "gruard_detector.h"
#include "numerics.h"
#include "parts.h"

typedef struct {
    PyObject_HEAD
    Py_buffer blob;
    gruard_model model;
    gruard_detector detector;
    void *memory;
} Core;

static const char *const REASONS[] = {
    "sound", "not aligned", "not a blob of this version", "truncated", "damaged",
    "a count, offset or operator that no bundle has", "too little memory",
    "laid out for another kernel",
};

static void core_free(Core *core) {
    PyTypeObject *type = Py_TYPE((PyObject *)core);
    PyMem_Free(core->memory);
    if (core->blob.obj) PyBuffer_Release(&core->blob);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(core);
    Py_DECREF(type);
}

static int open_core(Core *core) {
    gruard_error error = gruard_open(&core->model, core->blob.buf, (size_t)core->blob.len);
    if (error) {
        PyErr_Format(PyExc_ValueError, "the blob is refused: %s", REASONS[error]);
        return -1;
    }
    const size_t size = gruard_memory(&core->model);
    core->memory = PyMem_Malloc(size);
    if (!core->memory) {
        PyErr_NoMemory();
        return -1;
    }
    return gruard_start(&core->detector, &core->model, core->memory, size) ? -1 : 0;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *blob;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O", &blob)) return NULL;
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Core *core = (Core *)make(type, 0);
    if (!core) return NULL;
    if (PyObject_GetBuffer(blob, &core->blob, PyBUF_SIMPLE) || open_core(core)) {
        Py_DECREF(core);
        return NULL;
    }
    return (PyObject *)core;
}

/* Get a contiguous buffer of a multiple of `unit` bytes; returns the number of units, or -1. */
static Py_ssize_t units_of(PyObject *object, Py_buffer *view, int flags, size_t unit,
                           size_t alignment) {
    if (PyObject_GetBuffer(object, view, flags)) return -1;
    if (view->len % (Py_ssize_t)unit == 0 && (uintptr_t)view->buf % alignment == 0)
        return view->len / (Py_ssize_t)unit;
    PyErr_SetString(PyExc_ValueError, "a buffer of another size or alignment is expected");
    PyBuffer_Release(view);
    return -1;
}

static PyObject *core_run(Core *core, PyObject *args) {
    PyObject *rows, *records;
    if (!PyArg_ParseTuple(args, "OO", &rows, &records)) return NULL;
    Py_buffer in, out;
    const uint32_t channels = core->model.channels;
    const Py_ssize_t count = units_of(rows, &in, PyBUF_SIMPLE, channels * sizeof(float), 4);
    if (count < 0) return NULL;
    const Py_ssize_t room = units_of(records, &out, PyBUF_WRITABLE, sizeof(gruard_record), 8);
    if (room < 0) {
        PyBuffer_Release(&in);
        return NULL;
    }
    if (room >= count) {
        const float *values = in.buf;
        gruard_record *record = out.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++)
            gruard_step(&core->detector, values + i * channels, record + i);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "fewer records than rows");
    }
    PyBuffer_Release(&in);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* A graph in Python, which has its own references to the buffers of inputs and outputs. */
typedef struct {
    gruard_graph graph;
    PyObject *call;
    int failed;
} python_graph;

static void call_python(gruard_graph *graph) {
    python_graph *self = (python_graph *)graph; /* its first member */
    PyObject *nothing = self->call == Py_None ? NULL : PyObject_CallObject(self->call, NULL);
    if (!nothing && self->call != Py_None) self->failed = 1;
    Py_XDECREF(nothing);
}

static float *put(float *out, const float *values, size_t count) {
    memcpy(out, values, count * sizeof(float));
    return out + count;
}

/* Results of the last step, in the order of edge_runtime.native.engine.roll_on_core. */
static void put_traces(const gruard_detector *d, float *out) {
    const size_t n = d->model->channels;
    const float marks[3] = {d->score, (float)d->measured, (float)d->graph->settling};
    out = put(out, d->reading, n);
    out = put(out, d->usable, n);
    out = put(out, d->forecast, n);
    out = put(out, d->own, n);
    out = put(out, d->ahead, n);
    out = put(out, d->gate, n);
    out = put(out, d->history, n);
    out = put(out, d->doubt, n);
    out = put(out, d->terms, 3 * n);
    out = put(out, d->parts, gruard_heights(d->model));
    out = put(out, marks, 3);
    out = put(out, d->hidden, d->model->states);
    put(out, d->graph->inputs, GRUARD_STATE * n + d->model->states);
}

static size_t trace_width(const gruard_model *m) {
    return (11 + GRUARD_STATE) * m->channels + gruard_heights(m) + 3 + 2 * m->states;
}

static size_t output_width(const gruard_model *m) { return 3 * m->channels + 2 * m->states; }

static int roll(Core *core, PyObject *call, Py_buffer *view) {
    const gruard_model *m = &core->model;
    const size_t sizes[5] = {
        m->channels * sizeof(float), sizeof(gruard_record), trace_width(m) * sizeof(float),
        (GRUARD_STATE * m->channels + m->states) * sizeof(float), output_width(m) * sizeof(float),
    };
    const Py_ssize_t count = view[0].len / (Py_ssize_t)sizes[0];
    for (int i = 0; i < 5; i++)
        if (view[i].len != (Py_ssize_t)sizes[i] * (i < 3 ? count : 1)) {
            PyErr_SetString(PyExc_ValueError, "a buffer of another size is expected");
            return -1;
        }
    python_graph graph = {{view[3].buf, view[4].buf, call_python, 0}, call, 0};
    core->detector.graph = &graph.graph;
    for (Py_ssize_t i = 0; i < count && !graph.failed; i++) {
        gruard_step(&core->detector, (float *)view[0].buf + i * m->channels,
                    (gruard_record *)view[1].buf + i);
        put_traces(&core->detector, (float *)view[2].buf + i * trace_width(m));
    }
    core->detector.graph = NULL;
    return graph.failed ? -1 : 0;
}

static PyObject *core_roll(Core *core, PyObject *args) {
    PyObject *objects[6];
    Py_buffer views[5];
    int held = 0, failed = 0;
    if (!PyArg_ParseTuple(args, "OOOOOO", &objects[0], &objects[1], &objects[2], &objects[3],
                          &objects[4], &objects[5]))
        return NULL;
    for (; held < 5 && !failed; held += !failed)
        failed = PyObject_GetBuffer(objects[held], &views[held], held ? PyBUF_WRITABLE : PyBUF_SIMPLE);
    if (!failed) failed = roll(core, objects[5], views);
    while (held) PyBuffer_Release(&views[--held]);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* The indices of the bits that are set. */
static PyObject *indices(const uint32_t *words, uint32_t channels) {
    Py_ssize_t count = 0;
    for (uint32_t i = 0; i < GRUARD_WORDS; i++) count += __builtin_popcount(words[i]);
    PyObject *tuple = PyTuple_New(count);
    for (uint32_t i = channels; tuple && i-- > 0;)
        if (words[i / 32] >> (i % 32) & 1)
            PyTuple_SetItem(tuple, --count, PyLong_FromUnsignedLong(i));
    return tuple;
}

static PyObject *blamed_of(const gruard_record *record) {
    Py_ssize_t count = 0;
    while (count < GRUARD_BLAMED && record->blamed[count] >= 0) count++;
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++)
        PyTuple_SetItem(tuple, i, PyLong_FromLong(record->blamed[i]));
    return tuple;
}

/* The tuple that Core.step returns; Py_BuildValue takes a third of a small model's step. */
static PyObject *answer_of(const gruard_record *record, uint32_t channels) {
    PyObject *const values[] = {
        PyFloat_FromDouble((double)record->score), PyLong_FromLong(record->flags),
        PyLong_FromLong(record->tier), PyLong_FromLong(record->alarm),
        PyLong_FromLong(record->kind), PyBool_FromLong(record->sensor),
        PyFloat_FromDouble((double)record->probability), blamed_of(record),
        indices(record->masked, channels), indices(record->imputed, channels),
    };
    enum { COUNT = sizeof values / sizeof *values };
    PyObject *answer = PyTuple_New(COUNT);
    int complete = answer != NULL;
    for (Py_ssize_t i = 0; i < COUNT; i++) {
        complete &= values[i] != NULL;
        if (answer) PyTuple_SetItem(answer, i, values[i]);
        else Py_XDECREF(values[i]);
    }
    if (complete) return answer;
    Py_XDECREF(answer);
    return NULL;
}

typedef void (*stepper)(gruard_detector *, const float *, gruard_record *);

static PyObject *one_step(Core *core, PyObject *values, stepper step) {
    Py_buffer in;
    const uint32_t channels = core->model.channels;
    const Py_ssize_t count = units_of(values, &in, PyBUF_SIMPLE, channels * sizeof(float), 4);
    if (count < 0) return NULL;
    gruard_record record;
    if (count == 1) step(&core->detector, in.buf, &record);
    PyBuffer_Release(&in);
    if (count != 1) {
        PyErr_SetString(PyExc_ValueError, "one row is expected");
        return NULL;
    }
    return answer_of(&record, channels);
}

static PyObject *core_step(Core *core, PyObject *values) {
    return one_step(core, values, gruard_step);
}

static PyObject *core_step_fallback(Core *core, PyObject *values) {
    return one_step(core, values, gruard_step_fallback);
}

static PyObject *core_reset(Core *core, PyObject *unused) {
    (void)unused;
    gruard_reset(&core->detector);
    Py_RETURN_NONE;
}

static PyObject *core_set_threshold(Core *core, PyObject *args) {
    float threshold, clear;
    if (!PyArg_ParseTuple(args, "ff", &threshold, &clear)) return NULL;
    gruard_set_threshold(&core->detector, threshold, clear);
    Py_RETURN_NONE;
}

static PyObject *bytes_of(const void *data, size_t size) {
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
}

/* Results of the last step, as bytes: see NativeDetector.replay of edge_runtime.native.engine. */
static PyObject *core_traces(Core *core, PyObject *unused) {
    const gruard_detector *d = &core->detector;
    const size_t n = core->model.channels * sizeof(float);
    (void)unused;
    return Py_BuildValue(
        "(NNNNNNffN)", bytes_of(d->mask, n), bytes_of(d->forecast, n), bytes_of(d->gate, n),
        bytes_of(d->hidden, core->model.states * sizeof(float)),
        bytes_of(d->parts, gruard_heights(&core->model) * sizeof(float)),
        bytes_of(d->arena, core->model.arena), d->score, d->fallback_score,
        PyBool_FromLong(d->fallback_alarmed));
}

static PyObject *core_possible(Core *core, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(gruard_state_is_possible(&core->detector));
}

/* The live model (pointers), detector and memory, writable; release them before the core. */
static PyObject *core_live(Core *core, PyObject *unused) {
    (void)unused;
    return Py_BuildValue(
        "(NNN)",
        PyMemoryView_FromMemory((char *)&core->model, sizeof core->model, PyBUF_WRITE),
        PyMemoryView_FromMemory((char *)&core->detector, sizeof core->detector, PyBUF_WRITE),
        PyMemoryView_FromMemory(core->memory, (Py_ssize_t)gruard_memory(&core->model),
                                PyBUF_WRITE));
}

/* As Fallback._is_possible of edge_runtime.detector.fallback. */
static PyObject *core_fallback_possible(Core *core, PyObject *unused) {
    const gruard_detector *d = &core->detector;
    int possible = 1;
    (void)unused;
    for (uint32_t i = 0; i < core->model.channels; i++) /* a comparison with NaN is false */
        possible &= gruard_abs(d->view_level[i]) <= 2.0f * GRUARD_VALUE_CLIP &&
                    gruard_abs(d->view_last[i]) <= FLT_MAX && gruard_abs(d->view_up[i]) <= FLT_MAX &&
                    gruard_abs(d->view_down[i]) <= FLT_MAX &&
                    d->view_same[i] <= FLT_MAX && d->view_missing[i] <= FLT_MAX;
    return PyBool_FromLong(possible);
}

static PyObject *core_run_graph(Core *core, PyObject *count) {
    const long steps = PyLong_AsLong(count);
    if (steps == -1 && PyErr_Occurred()) return NULL;
    for (long i = 0; i < steps; i++) gruard_run_graph(&core->model, core->detector.arena);
    Py_RETURN_NONE;
}

static PyObject *core_distrusted(Core *core, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(core->detector.tiers.distrusted);
}

static PyObject *core_changed(Core *core, PyObject *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(core->detector.changed);
}

static PyObject *core_lasting_change(Core *core, PyObject *unused) {
    const gruard_detector *d = &core->detector;
    (void)unused;
    return Py_BuildValue("(INN)", (unsigned int)d->changes,
                         bytes_of(d->centre, core->model.channels * sizeof(float)),
                         bytes_of(d->baselines, gruard_heights(&core->model) * sizeof(float)));
}

static PyObject *core_resume(Core *core, PyObject *args) {
    PyObject *vectors[2];
    Py_buffer centre, baselines;
    unsigned char changed;
    unsigned int changes;
    gruard_detector *d = &core->detector;
    if (!PyArg_ParseTuple(args, "bIOO", &changed, &changes, &vectors[0], &vectors[1])) return NULL;
    const Py_ssize_t n = units_of(vectors[0], &centre, PyBUF_SIMPLE, sizeof(float), 4);
    if (n < 0) return NULL;
    const Py_ssize_t parts = units_of(vectors[1], &baselines, PyBUF_SIMPLE, sizeof(float), 4);
    if (parts < 0) {
        PyBuffer_Release(&centre);
        return NULL;
    }
    if (n == (Py_ssize_t)core->model.channels && parts == (Py_ssize_t)gruard_heights(&core->model))
        gruard_resume(d, changed, changes, centre.buf, baselines.buf);
    else PyErr_SetString(PyExc_ValueError, "of another number of channels or parts");
    PyBuffer_Release(&centre);
    PyBuffer_Release(&baselines);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *core_stand_at(Core *core, PyObject *vector) {
    Py_buffer centre;
    const Py_ssize_t n = units_of(vector, &centre, PyBUF_SIMPLE, sizeof(float), 4);
    if (n < 0) return NULL;
    if (n == (Py_ssize_t)core->model.channels) gruard_stand_at(&core->detector, centre.buf);
    else PyErr_SetString(PyExc_ValueError, "of another number of channels");
    PyBuffer_Release(&centre);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *core_accept(Core *core, PyObject *yes) {
    gruard_accept(&core->detector, PyObject_IsTrue(yes));
    Py_RETURN_NONE;
}

static PyObject *core_memory(Core *core, PyObject *unused) {
    (void)unused;
    return PyLong_FromSize_t(gruard_memory(&core->model));
}

static PyMethodDef core_methods[] = {
    {"run", (PyCFunction)core_run, METH_VARARGS,
     "run(rows, records): float32 rows in, one record each out, both as buffers."},
    {"roll", (PyCFunction)core_roll, METH_VARARGS,
     "roll(rows, records, traces, inputs, outputs, graph): as run, with the traces of each step; "
     "graph() is called between inputs and outputs in the place of the blob's."},
    {"step", (PyCFunction)core_step, METH_O,
     "step(row): score, flags, tier, alarm, kind, sensor, probability, blamed, masked, imputed."},
    {"step_fallback", (PyCFunction)core_step_fallback, METH_O,
     "step_fallback(row): as step, by the fallback only."},
    {"reset", (PyCFunction)core_reset, METH_NOARGS, "Forget the recurrent state."},
    {"set_threshold", (PyCFunction)core_set_threshold, METH_VARARGS,
     "set_threshold(value, clear) of the model's alarm."},
    {"traces", (PyCFunction)core_traces, METH_NOARGS,
     "Of the last step mask, forecast, gate, states, parts and arena as bytes, score of model and "
     "fallback, and the fallback's alarm."},
    {"possible", (PyCFunction)core_possible, METH_NOARGS,
     "Whether the state is within the bounds that every step keeps."},
    {"live", (PyCFunction)core_live, METH_NOARGS,
     "Model, detector and memory as writable buffers; none may outlive the core."},
    {"fallback_possible", (PyCFunction)core_fallback_possible, METH_NOARGS,
     "As possible, for the state of step_fallback."},
    {"run_graph", (PyCFunction)core_run_graph, METH_O,
     "run_graph(count): run only the int8 graph, `count` times, for measurements."},
    {"distrusted", (PyCFunction)core_distrusted, METH_NOARGS,
     "Whether the model is distrusted: tier 3 answers."},
    {"changed", (PyCFunction)core_changed, METH_NOARGS, "The ChangePhase as a number."},
    {"lasting_change", (PyCFunction)core_lasting_change, METH_NOARGS,
     "Number of reported changes, centre and baselines as bytes."},
    {"resume", (PyCFunction)core_resume, METH_VARARGS,
     "resume(changed, changes, centre, baselines): continue another detector's change."},
    {"stand_at", (PyCFunction)core_stand_at, METH_O,
     "stand_at(centre): the fallback judges readings relative to it."},
    {"accept", (PyCFunction)core_accept, METH_O,
     "accept(yes): the owner accepts a change, or revokes that."},
    {"memory", (PyCFunction)core_memory, METH_NOARGS, "Bytes of the detector's state."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, (void *)core_new},
    {Py_tp_dealloc, (void *)core_free},
    {Py_tp_methods, core_methods},
    {Py_tp_doc, "Core(blob): the detector of a packed bundle."},
    {0, NULL},
};

static PyType_Spec core_spec = {
    "edge_runtime.native._core.Core", sizeof(Core), 0, Py_TPFLAGS_DEFAULT, core_slots,
};

/* Raised with every change of these calls, so that Python refuses an engine of an older build:
 * edge_runtime.native.engine.INTERFACE. */
enum { INTERFACE = 4 };

static int fill(PyObject *module) {
    PyObject *type = PyType_FromSpec(&core_spec);
    if (!type || PyModule_AddObject(module, "Core", type)) return -1;
    if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE)) return -1;
    if (PyModule_AddIntConstant(module, "LAYOUT", (long)gruard_layout)) return -1;
    return PyModule_AddIntConstant(module, "RECORD_SIZE", sizeof(gruard_record));
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_core", "gruard's C core on this processor.", 0, NULL, module_slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_def); }
