#include <stddef.h>

#include "edge.h"

struct adc_dt_spec { int channel; };
struct adc_sequence {
    void *buffer;
    size_t buffer_size;
};
/* A devicetree with three inputs. */
#define DT_PATH(node) node
#define DT_FOREACH_PROP_ELEM(node, property, each)                                              \
    each(node, property, 0) each(node, property, 1) each(node, property, 2)
#define ADC_DT_SPEC_GET_BY_IDX(node, index) {index}

static inline int adc_is_ready_dt(const struct adc_dt_spec *input) { return input != NULL; }
static inline int adc_channel_setup_dt(const struct adc_dt_spec *input) { return input == NULL; }
static inline int adc_sequence_init_dt(const struct adc_dt_spec *input,
                                       struct adc_sequence *sequence) {
    (void)input;
    return sequence->buffer_size != sizeof(int16_t);
}
static inline int adc_read_dt(const struct adc_dt_spec *input,
                              const struct adc_sequence *sequence) {
    *(int16_t *)sequence->buffer = (int16_t)edge_reading(input->channel);
    return 0;
}
