// The bytes: u32 little-endian size of the double array, the double array, the replacements.
//
// A unit of the double array is a u32: bits 0-7 are the label of the edge that leads to it, bit 8
// says that a string ends here, bits 10-31 are the offset of its children, times 256 if bit 9 is
// set. The child of unit i over byte b is unit i ^ offset ^ b, if its label is b. Where a string
// ends, unit i ^ offset has bit 31 set and the value in the others: where in the replacements its
// own starts. Source: google/sentencepiece; S. Yata, darts-clone.
#include "model/charsmap.h"

#include <string.h>

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

pb_err pb_charsmap_open(pb_charsmap *m, const uint8_t *data, size_t size)
{
    static const char hint[] = "the file may be damaged";
    *m = (pb_charsmap){0};
    if (size < 4)
        return pb_fail(PB_INPUT, hint, "a character map of %zu bytes is too short", size);
    size_t units = read_u32(data);
    if (units == 0 || units % 4 != 0 || units > size - 4)
        return pb_fail(PB_INPUT, hint, "a character map of %zu bytes has a tree of %zu bytes", size,
                       units);
    if (size - 4 == units || data[size - 1] != 0)
        return pb_fail(PB_INPUT, hint, "the replacements of a character map do not end");
    *m = (pb_charsmap){data + 4, units / 4, (const char *)data + 4 + units, size - 4 - units};
    return PB_OK;
}

size_t pb_charsmap_match(const pb_charsmap *m, const char *text, size_t len, const char **by)
{
    size_t longest = 0;
    if (m->n_units == 0)
        return 0;
    uint32_t at = 0, unit = read_u32(m->units);
    for (size_t i = 0; i <= len; i++) {
        at ^= (unit >> 10) << ((unit & 1u << 9) >> 6); // where the children are
        if (unit >> 8 & 1) {
            uint32_t value = at < m->n_units ? read_u32(m->units + 4 * (size_t)at) : 0;
            if (value >> 31 && (value & INT32_MAX) < m->n_strings && i > 0) {
                longest = i;
                *by = m->strings + (value & INT32_MAX);
            }
        }
        if (i == len)
            break;
        at ^= (uint8_t)text[i];
        if (at >= m->n_units)
            break;
        unit = read_u32(m->units + 4 * (size_t)at);
        if ((unit & (1u << 31 | 255)) != (uint8_t)text[i])
            break;
    }
    return longest;
}
