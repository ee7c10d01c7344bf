// Number formats of checkpoints: half precision and bfloat16.
#ifndef PB_MODEL_NUMBERS_H
#define PB_MODEL_NUMBERS_H

#include "tensor/real.h"
#include <stdint.h>

float pb_float_of_half(uint16_t h); // exact
float pb_float_of_bfloat(uint16_t b);
// Rounded once, to nearest even; too large a value becomes infinite.
uint16_t pb_half_of_real(real x);
uint16_t pb_bfloat_of_real(real x);

#endif
