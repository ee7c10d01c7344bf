// E2E NLG: the published numbers of meanings on the real files, the normalisation on a small set,
// and hostile files.
#include "tasks/task.h"

#include "core/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char good_train[] =
    "name[The Mill], priceRange[£ 20 - 25], customerrating[5 out of 5]\tThe Mill isn 't cheap : "
    "£ 20- £ 25 . It 's 'nice ' - a kid - friendly ' pub ' ( big ) , really !\n"
    "name[The Mill], area[riverside]\t The Mill is by the river .\n";
static const char good_dev[] = "mr,ref\r\n"
                               "\"name[Aromi], customer rating[low]\",\"It's  \"\"Aromi\"\",\r\n a "
                               "place. \"\r\n"
                               "\"area[riverside], name[Aromi]\",Aromi by the river\r\n";
static const char good_test[] = "\"mr\",\"ref\"\n"
                                "\"name[Cocum], near[Ranch]\",\"One\"\n"
                                "\"name[Cocum], eatType[pub]\",\"Two\"\n"
                                "\"name[Cocum],near[Ranch]\",\"Three\"";

static char folder[256];
static const char *const files[] = {"train.tsv", "dev.csv", "test.csv"};

static void write_file(const char *name, const char *text, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void remove_files(void)
{
    char path[512];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/pb-e2e-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    remove_files();
    return rmdir(folder);
}

static void write_good(void)
{
    write_file(files[0], good_train, sizeof good_train - 1);
    write_file(files[1], good_dev, sizeof good_dev - 1);
    write_file(files[2], good_test, sizeof good_test - 1);
}

static pb_err load(pb_dataset **d, const char *data, pb_task_args args)
{
    args.data = data;
    return pb_task_load(d, "e2e", &args);
}

static void test_small(void **state)
{
    (void)state;
    pb_dataset *d;
    write_good();
    if (load(&d, folder, (pb_task_args){0}))
        fail_msg("%s", pb_error_message());
    const pb_example *e = pb_dataset_at(d, PB_TRAIN, 0);
    assert_string_equal(e->prompt,
                        "name[The Mill], priceRange[£20-25], customer rating[5 out of 5]\n");
    assert_string_equal(e->response, "The Mill isn't cheap: £20-£25. It's 'nice' - a kid-friendly "
                                     "'pub' (big), really!");
    assert_int_equal(pb_dataset_count(d, PB_TRAIN), 2);

    assert_int_equal(pb_dataset_count(d, PB_VALID), 2);
    e = pb_dataset_at(d, PB_VALID, 0);
    assert_string_equal(e->prompt, "name[Aromi], area[riverside]\n"); // slots in their order
    e = pb_dataset_at(d, PB_VALID, 1);
    assert_string_equal(e->response, "It's \"Aromi\", a place.");

    assert_int_equal(pb_dataset_count(d, PB_TEST), 2);
    e = pb_dataset_at(d, PB_TEST, 1);
    assert_string_equal(e->prompt, "name[Cocum], near[Ranch]\n");
    assert_int_equal(e->n_references, 2);
    assert_string_equal(e->references[0], "One");
    assert_string_equal(e->references[1], "Three");
    pb_dataset_free(d);
    remove_files();
}

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        size_t file;
        const char *text, *says;
        size_t n; // 0: strlen
    } cases[] = {
        {0, "", "no rows", 0},
        {1, "", "no rows", 0},
        {2, "mr,ref\n", "no rows", 0},
        {0, "name[A], area[x]\tGood .\nname[A]  no tab\n", "line 2: no tab", 0},
        {0, "name[A]\tone\ttwo\n", "line 1: more than two", 0},
        {0, "name[A]\t\n", "line 1: the reference is empty", 0},
        {0, "name[A\tGood .\n", "line 1: \"name[A\" is not a slot", 0},
        {0, "name[A], colour[red]\tGood .\n", "unknown slot \"colour\"", 0},
        {0, "name[A], name[B]\tGood .\n", "slot name occurs twice", 0},
        {0, "name[]\tGood .\n", "slot name has no value", 0},
        {0, "name[A] area[x]\tGood .\n", "\"area[x]\" follows the slot name", 0},
        {0, "\tGood .\n", "meaning representation is empty", 0},
        {0, "name[A]\tab\0cd\n", "not UTF-8", 14},
        {0, "name[A]\t\xff\xfe\n", "not UTF-8", 0},
        {0, "name[A]\tCaf\xc3\n", "not UTF-8", 0},
        {0, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1: no tab", 16},
        {1, "mr,ref\n\"name[A], area[x]\",\"never closed\n\nmore", "line 2: a quoted field", 0},
        {1, "mr,ref\n\"name[A]\",\"a\nb\"\n\"name[B]\"\n", "line 4: only one column", 0},
        {1, "mr,ref\nname[A],b\"c\n", "line 2: a quotation mark inside", 0},
        {1, "mr,ref\n\"name[A]\"x,c\n", "line 2: text follows", 0},
        {1, "mr,ref\nname[A],b,c\n", "line 2: more than two", 0},
        {1, "mr,ref\nname[A],\n", "line 2: the reference is empty", 0},
        {1, "name,text\nname[A],b\n", "line 1: the header", 0},
        {1, "MR\nname[A]\n", "line 1: only one", 0},
        {1, "mr,ref\nname[A],\x01\n", "not UTF-8", 0},
        {1, "\"", "line 1: a quoted field", 0},
        {1, "mr,ref\n\"name[The Mill], area[riverside]\",Twin\n", "also example 0 of valid", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pb_dataset *d;
        write_good();
        write_file(files[cases[i].file], cases[i].text,
                   cases[i].n ? cases[i].n : strlen(cases[i].text));
        pb_err err = load(&d, folder, (pb_task_args){0});
        if (err != PB_INPUT || d || !strstr(pb_error_message(), cases[i].says))
            fail_msg("case %zu: %s: %s", i, pb_error_name(err), pb_error_message());
    }

    // Too long by far, and a file that is missing.
    pb_dataset *d;
    size_t n = 1 << 20;
    char *big = malloc(n);
    memset(big, 'x', n);
    memcpy(big, "name[A]\t", 8);
    write_good();
    write_file(files[0], big, n);
    assert_int_equal(load(&d, folder, (pb_task_args){0}), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "too long"));
    free(big);
    remove_files();
    assert_int_equal(load(&d, folder, (pb_task_args){0}), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "trainset.csv"));
    assert_non_null(strstr(pb_error_hint(), "https://"));
}

// A file cut anywhere is read or refused; it never crashes, and quotes cut open are noticed.
static void test_cut(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof good_dev; n++) {
        pb_dataset *d;
        write_good();
        write_file(files[1], good_dev, n);
        pb_err err = load(&d, folder, (pb_task_args){0});
        assert_true(err == PB_OK || err == PB_INPUT);
        pb_dataset_free(d);
    }
}

static void test_real(void **state)
{
    (void)state;
    char data[4096], path[4200];
    const char *env = getenv("PB_DATA");
    if (env && *env)
        snprintf(data, sizeof data, "%s", env);
    else
        snprintf(data, sizeof data, "%s/../shared/data", PB_SOURCE_DIR);
    snprintf(path, sizeof path, "%s/e2e", data);
    if (!pb_is_dir(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    pb_dataset *d, *inside;
    if (load(&d, data, (pb_task_args){0}))
        fail_msg("%s", pb_error_message());
    assert_int_equal(pb_dataset_count(d, PB_TRAIN), 42061);
    assert_int_equal(pb_dataset_count(d, PB_VALID), 547);
    assert_int_equal(pb_dataset_count(d, PB_TEST), 630);
    static const size_t rows[PB_N_SPLITS] = {42061, 4672, 4693};
    const pb_task *task = pb_task_find("e2e");
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        size_t refs = 0;
        for (size_t i = 0; i < pb_dataset_count(d, s); i++) {
            const pb_example *e = pb_dataset_at(d, s, i);
            refs += e->n_references;
            assert_non_null(strstr(e->prompt, "name["));
            assert_null(strstr(e->prompt, "customerrating"));
            assert_null(strstr(e->prompt, "£ "));
            for (size_t j = 0; j < e->n_references; j++)
                assert_in_range(strlen(e->references[j]), 1, task->max_new);
            if (s == PB_TRAIN) {
                assert_null(strstr(e->response, " ."));
                assert_null(strstr(e->response, " 's "));
                assert_null(strstr(e->response, "£ "));
            }
        }
        assert_int_equal(refs, rows[s]);
    }

    // The folder itself will do, and a sample is the same for every seed and not the file's head.
    pb_task_args a = {.seed = 1, .limit = {50, 10, 10}}, b = a;
    b.seed = 2;
    char hash[2][65];
    bool head = true;
    for (size_t k = 0; k < 2; k++) {
        if (load(&inside, path, k ? b : a))
            fail_msg("%s", pb_error_message());
        assert_int_equal(pb_dataset_count(inside, PB_TRAIN), 50);
        pb_dataset_hash(inside, hash[k]);
        for (size_t i = 0; i < 10; i++)
            head = head && !strcmp(pb_dataset_at(inside, PB_TEST, i)->prompt,
                                   pb_dataset_at(d, PB_TEST, i)->prompt);
        pb_dataset_free(inside);
    }
    assert_string_equal(hash[0], hash[1]);
    assert_false(head);
    pb_dataset_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
