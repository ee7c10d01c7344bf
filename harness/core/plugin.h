// Plugins: a method or a task compiled on its own as a shared object. Its file is the same as in
// the tree; compiled with -DPB_PLUGIN (which the installed CMake package and pkg-config file add),
// PB_METHOD and PB_TASK also define the one symbol that the loader looks for.
#ifndef PB_CORE_PLUGIN_H
#define PB_CORE_PLUGIN_H

#include <stdint.h>

// Raised when the meaning of the contract changes; changes of its structs show in their sizes.
enum { PB_ABI = 1 };

struct pb_method;
struct pb_task;

typedef struct pb_plugin {
    char magic[16];       // PB_PLUGIN_MAGIC
    uint32_t abi;         // PB_ABI of the headers it was compiled with
    uint32_t sizes;       // a sum over the structs of the contract, see PB_SIZES
    const char *compiled; // version of these headers
    const struct pb_method *method;
    const struct pb_task *task;
} pb_plugin;

#define PB_PLUGIN_MAGIC  "pedrobench-plug"
#define PB_PLUGIN_SYMBOL "pb_plugin_entry"

#define PB_TEXT(x)    PB_TEXT_OF(x)
#define PB_TEXT_OF(x) #x
#ifdef PB_PLUGIN // the version of the headers
#define PB_ENTRY(kind, name, sizes_)                                                               \
    extern const struct pb_##kind pb_##kind##_##name;                                              \
    __attribute__((visibility("default"))) const pb_plugin pb_plugin_entry = {                     \
        PB_PLUGIN_MAGIC, PB_ABI, sizes_, PB_TEXT(PB_PLUGIN), .kind = &pb_##kind##_##name}
#endif

#endif
