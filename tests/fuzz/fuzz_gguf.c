// libFuzzer program for the GGUF reader; the properties are in gguf.h.
#include "fuzz/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)target_gguf(data, size);
    return 0;
}
