// libFuzzer program for the safetensors reader; the properties are in targets.h.
#include "fuzz/targets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)target_safetensors(data, size);
    return 0;
}
