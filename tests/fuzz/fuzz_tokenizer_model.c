// libFuzzer program for tokenizer.model; the properties are in tokenizers.h.
#include "fuzz/tokenizers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)target_spm(data, size);
    return 0;
}
