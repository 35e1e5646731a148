/* A delegate for a simulated accelerator: a real library, in the interpreter's own process.
 *
 * It takes over the first LOGISTIC, or the first custom operator of a Coral, and gives the CPU's
 * codes. DELEGATE_PLAN in the environment says what else it does:
 *
 *   idle          takes over nothing
 *   coarse        gives codes that differ from the CPU's by at most one
 *   wrong         gives wrong codes
 *   no-device     cannot be created, as a Coral that is not plugged in
 *   refuse        does not take the model
 *   abort, crash, hang                  at once
 *   late-abort, late-error, late-hang   in the first step after the file DELEGATE_UNPLUGGED exists
 *
 * A hang opens and closes the FIFO DELEGATE_HANGS, if it is given, to report itself.
 *
 * The declarations are prefixes of those in TensorFlow Lite's C API (core/c/common.h, 2.14). A
 * Registration is passed by value, and may be longer than the interpreter's, not shorter.
 */

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, ERROR = 1, LOGISTIC = 14 };

/* Without this flag the interpreter first prepares the CPU's operators, which fails for a custom
 * operator. */
enum { ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  int size;
  int data[];
} IntArray;

typedef struct {
  int type;
  int8_t *data;
  IntArray *dims;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  struct {
    int type;
    void *params;
  } quantization;
  void *sparsity;
  const IntArray *dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs, *outputs;
} Node;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  int (*ResizeTensor)(Context *, Tensor *, IntArray *);
  void (*ReportError)(Context *, const char *, ...);
  int (*AddTensors)(Context *, int, int *);
  int (*GetNodeAndRegistration)(Context *, int, Node **, Registration **);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(Context *, Registration, const IntArray *,
                                               Delegate *);
};

struct Delegate {
  void *data;
  int (*prepare)(Context *, Delegate *);
  void *copy_from_buffer, *copy_to_buffer, *free_buffer;
  int64_t flags;
  void *opaque_builder;
};

static bool planned(const char *what) {
  const char *plan = getenv("DELEGATE_PLAN");
  return plan != NULL && strcmp(plan, what) == 0;
}

static bool unplugged(void) {
  const char *file = getenv("DELEGATE_UNPLUGGED");
  return file != NULL && access(file, F_OK) == 0;
}

static void hang(void) {
  const char *fifo = getenv("DELEGATE_HANGS");
  if (fifo != NULL) close(open(fifo, O_WRONLY));
  for (;;) pause();
}

static void crash(void) {
  volatile int *volatile nowhere = NULL;
  *nowhere = 1;
}

static int8_t logistic(int8_t code, const Tensor *from, const Tensor *to) {
  const float value = from->params.scale * (float)(code - from->params.zero_point);
  const float inverse = 1.0f / to->params.scale;
  float found = roundf(1.0f / (1.0f + expf(-value)) * inverse) + (float)to->params.zero_point;
  if (planned("coarse")) found = 2.0f * floorf(found / 2.0f);
  if (planned("wrong")) found = -found;
  return (int8_t)fmaxf(-128.0f, fminf(127.0f, found));
}

static int invoke(Context *context, Node *node) {
  if (unplugged() && planned("late-abort")) abort();
  if (unplugged() && planned("late-hang")) hang();
  if (unplugged() && planned("late-error")) {
    context->ReportError(context, "the device is gone");
    return ERROR;
  }
  const Tensor *from = &context->tensors[node->inputs->data[0]];
  const Tensor *to = &context->tensors[node->outputs->data[0]];
  for (size_t i = 0; i < to->bytes; i++) to->data[i] = logistic(from->data[i], from, to);
  return OK;
}

static bool takes(const Registration *operation) {
  const char *name = operation->custom_name;
  return operation->builtin_code == LOGISTIC ||
         (name != NULL && strcmp(name, "edgetpu-custom-op") == 0);
}

static int take_over(Context *context, Delegate *delegate, int index) {
  const Registration kernel = {.invoke = invoke, .custom_name = "made", .version = 1};
  IntArray *one = malloc(sizeof(IntArray) + sizeof(int));
  if (one == NULL) return ERROR;
  one->size = 1;
  one->data[0] = index;
  const int status =
      context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, one, delegate);
  free(one);
  return status;
}

static int prepare(Context *context, Delegate *delegate) {
  IntArray *plan;
  if (planned("idle")) return OK;
  if (planned("refuse") || context->GetExecutionPlan(context, &plan) != OK) return ERROR;
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *operation;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &operation) != OK)
      return ERROR;
    if (takes(operation)) return take_over(context, delegate, plan->data[i]);
  }
  return OK;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
  (void)keys, (void)values, (void)count, (void)report; /* libedgetpu reports nothing either */
  if (planned("abort")) abort();
  if (planned("crash")) crash();
  if (planned("hang")) hang();
  if (planned("no-device")) return NULL;
  Delegate *delegate = calloc(1, sizeof(Delegate));
  if (delegate == NULL) return NULL;
  delegate->prepare = prepare;
  delegate->flags = ALLOW_DYNAMIC_TENSORS;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
