// Arms that are other programs: scripts that do the same work and time it themselves.
//
// One process per arm, fed by lines of JSON. The first line is the request; the script builds what
// it needs, does the work once, and answers {"ready": TEXT} with its versions (and, where they are
// not ours, {"flops": N} needed), or {"absent": TEXT} with the reason why it cannot. Then every
// line {"runs": N} makes it do the work once untimed and N times timed; it answers {"seconds": S}
// for the N together. It ends when its input does.
#ifndef PB_BENCH_PEER_H
#define PB_BENCH_PEER_H

#include "bench/bench.h"
#include "core/json.h"

// Starts argv (found by PATH; NULL-terminated) and adds its arm. *out is NULL when the peer is
// absent; *absent then says why (allocated; released with free).
pb_err pb_peer_arm(pb_arm **out, pb_work *w, const char *name, char *const *argv,
                   const json_t *request, char **absent);

// A folder for the files that peers open, such as models of gigabytes: under TMPDIR, or else /tmp.
// Scripts find it as PB_PEER_FOLDER in the environment; it is removed with all that is in it.
pb_err pb_peer_folder_make(char *out, size_t size);
void pb_peer_folder_remove(const char *folder);

#endif
