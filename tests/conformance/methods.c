// Every registered method, with its default options, every value of its listed options, and the
// combinations below, through the checks of harness/conformance.
//
// Built twice: in float, where equality is bit by bit as in use, and in double, where gradients are
// compared closely.
//
// Usage: conformance_methods [METHOD|-|compositions] [TEXT]: of one method, or all; only checks
// whose name
// ("method options, backbone: check") contains the text.
#include "conformance/conformance.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *method, *options;
    bool moved;
} combinations[] = {
    {"lora", "rank=5 targets=q,v", false},
    {"lora", "rank=40 alpha=3 targets=o,down", false},
    {"lora", "rslora=true rank=6 dropout=0.3", false},
    {"lora", "targets=q,v@1,down@0 ranks=q:2,q@1:5,down:1 alphas=v:3,q@0:0.5", false},
    {"lora", "targets=k@0,up rslora=true ranks=up@1:3 alphas=up:9", false},
    {"lora", "lr_ratio=7", false},
    {"loraplus", "rslora=true targets=v,up@1", false},
    {"dora", "targets=q,v@1,down@0 ranks=q:2,q@1:5,down:1 alphas=v:3,q@0:0.5", false},
    {"dora", "rslora=true rank=40 dropout=0.3", false},
    {"milora", "targets=q,v,up,down@0 top=2 rank=3 dropout=0.3 pooler=attention", false},
    {"milora", "targets=o,v@1 theta_every=3 theta_lr=0.01 pooler=mean", false},
    {"milora", "activation=identity top=7 pooler=max", false},
    {"adalora", "targets=q,v@1,down@0 init_r=5 target_r=2 dropout=0.3", false},
    {"adalora", "init_r=7 tinit=0 tfinal=0.5 every=2 orth=0.1 alpha=0 target_r=1", false},
    {"vera", "targets=q,v@1,down@0 rank=3 dropout=0.3", false},
    {"vera", "save_projection=false seed=7 rank=40", false},
    {"pissa", "targets=q,v@1,down@0 ranks=q:2,q@1:5,down:1 alphas=v:3,q@0:0.5", false},
    {"pissa", "rslora=true rank=6 dropout=0.3 alphas=up@1:2", false},
    {"ia3", "rank=3", false},
    {"ia3", "targets=q,k,v,o,gate,up,down inputs=q,v,o@1,up,down@0", false},
    {"ia3", "targets=v@1,gate,up@0 inputs=gate,up rank=2", false},
    {"ia3", "rank=3 targets=q,k,v,o,gate,up,down", false},
    {"prefix", "init=zero mlp=6", false},
    {"prefix", "init=random mlp=5 length=3", false},
    {"prefix", "init=random length=32", false},
    {"prefix", "init=random length=45 std=0.5", false},
    {"prompt", "init=random length=3", false},
    {"prompt", "init=random length=45 std=0.5", false},
    {"bitfit", "rank=3", false},
    {"bitfit", "targets=q,k,v,o", false},
    {"bitfit", "rank=2 targets=q,v,o@1", false},
    {"bitfit", "targets=v@1,gate,down@0", false},
    {"houlsby", "where=ffn activation=silu bottleneck=70", false},
    {"parallel", "scale=4 where=ffn", false},
    {"parallel", "scale=0.3 activation=gelu bottleneck=70", false},
    {"iapt", "length=33 pooler=mean", false},
    {"iapt", "length=3 r=70 activation=tanh", false},
    {"iapt", "theta_every=3 theta_lr=0.01", false},
    {"pedro", "targets=q,k,v,up rope=after", false},
    {"pedro", "pooler=mean pool_site=before prompt_scaled=false", false},
    {"pedro", "pooler=attention activation=silu pool_site=before rope=after", false},
    {"pedro", "prompt_scaled=false targets=v,gate,o,down r=3", false},
    {"pedro", "up_std=0.2 pooler=max", true},
    {"pedro", "theta_lr=0", false},
    {"pedro", "theta_every=3 theta_lr=0.01", false},
};

// Methods that are made of others.
static const struct {
    const char *name, *options[3];
} compositions[] = {
    {"lora+prefix", {"rank=3 length=5 mlp=4 init=zero", "init=random length=40"}},
    {"pedro+lora",
     {"r=3 rank=2 pedro.targets=q,k,v,up rope=after dropout=0.2",
      "pedro.pooler=attention theta_lr=0 lora.targets=q,down@1"}},
    {"ia3+lora", {"ia3.rank=3", "ia3.targets=q,k,v,o,gate,up,down inputs=q,v,o@1,up,down@0"}},
    {"lora+ia3", {"ia3.targets=q,k,v,o,gate,up,down inputs=q,v,o@1,up,down@0"}},
    {"dora+prefix", {"dora.rank=3 length=5 mlp=4 init=zero"}},
    {"prefix+pedro+ia3", {"length=3 init=zero mlp=3"}},
    {"lora+prompt", {"rank=3 length=5", "prompt.init=random length=40"}},
    {"iapt+lora", {"r=3 rank=2 iapt.length=3"}},
    {"bitfit+houlsby+parallel", {"bitfit.rank=2 houlsby.bottleneck=3 parallel.bottleneck=2"}},
};

static size_t counts[3];

static void found(void *self, const pb_finding *f)
{
    static const char *const words[] = {"passed", "FAILED", "does not apply"};
    bool verbose = *(const bool *)self;
    counts[f->verdict]++;
    if (f->verdict == PB_FAILED)
        printf("%s: FAILED: %s%s%s\n", f->name, f->why, *f->hint ? "\n  hint: " : "", f->hint);
    else if (verbose)
        printf("%s: %s%s%s (%.3f s)\n", f->name, words[f->verdict], *f->why ? ": " : "", f->why,
               f->seconds);
}

static pb_err add(pb_subjects *list, const pb_method *m)
{
    PB_TRY(pb_subjects_of(list, m));
    for (size_t k = 0; k < sizeof combinations / sizeof *combinations; k++)
        if (!strcmp(combinations[k].method, m->name))
            PB_TRY(pb_subjects_add(list, m, combinations[k].options, combinations[k].moved, true));
    return PB_OK;
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 && strcmp(argv[1], "-") != 0 ? argv[1] : NULL;
    bool verbose = argc > 2;
    pb_subjects list = {0};
    pb_conformance_args args = {
        .only = argc > 2 ? argv[2] : NULL, .self = &verbose, .found = found};
    const pb_method *m;
    pb_err err = PB_OK;
    if (only && !strcmp(only, "compositions")) {
        for (size_t i = 0; i < sizeof compositions / sizeof *compositions && !err; i++) {
            m = pb_method_find(compositions[i].name);
            err = m ? pb_subjects_add(&list, m, "", false, true) : PB_USAGE;
            for (size_t k = 0; k < 3 && compositions[i].options[k] && !err; k++)
                err = pb_subjects_add(&list, m, compositions[i].options[k], false, true);
        }
    } else if (only) {
        m = pb_method_find(only);
        err = m ? add(&list, m) : PB_USAGE;
    }
    for (size_t i = 0; !only && !err && (m = pb_method_at(i)); i++)
        err = add(&list, m);
#ifdef PB_NARROW // sanitizers look at memory: one backbone for each setting is enough
    for (size_t i = 0; i < list.n; i++)
        list.s[i].widely = false;
#endif
    if (!err)
        err = pb_conformance_run(&list, &args);
    pb_subjects_free(&list);
    if (err)
        printf("cannot check: %s\n", pb_error_message());
    printf("%zu passed, %zu failed, %zu do not apply\n", counts[PB_PASSED], counts[PB_FAILED],
           counts[PB_SKIPPED]);
    return err || counts[PB_FAILED] || !counts[PB_PASSED] ? 1 : 0;
}
