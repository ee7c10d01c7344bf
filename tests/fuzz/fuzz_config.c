// libFuzzer program for the config reader; the properties are in targets.h.
#include "fuzz/targets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)target_config(data, size);
    return 0;
}
