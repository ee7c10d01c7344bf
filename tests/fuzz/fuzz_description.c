// libFuzzer program for the task descriptions; the properties are in description.h.
#include "fuzz/description.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)target_description(data, size);
    return 0;
}
