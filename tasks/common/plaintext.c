// Every document draws its entities, an opening sentence of a topic, and some of the topic's other
// sentences in random order. Sentences of a topic agree with each other in any order, because they
// state the same few facts. In a sentence, [a|b] is a choice and $ marks an entity:
//   $A $B names; $X $Y he/she; $P $Q his/her; $O $R him/her (first and second person)
//   $c $t, $d $u colour and thing of the first and the second person
//   $M $N cities; $F $G foods; $L a place's name; $K its kind; $D a day; $1 $2 numbers, $3 their
//   sum, $4 a number greater than both, $5 an age
// $^ in front of a letter writes the entity in capitals. Capitals, digits and signs appear because
// a frozen backbone that has never seen a byte can hardly be tuned to write it.
#include "tasks/common/plaintext.h"

#include "tasks/common/generate.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SENTENCES = 20, MAX_DOCUMENT = 280 };

typedef struct topic {
    const char *opening;
    const char *more[MAX_SENTENCES]; // NULL-terminated when shorter
} topic;

static const topic topics[] = {
    {"$A [owns|has got|bought] a $c $t, and $B [owns|has got|bought] a $d $u.",
     {"$A [likes|loves] the $c $t very much.", "The $d $u belongs to $B.",
      "The $c $t belongs to $A.", "$B keeps the $d $u in [a box|a jar|the kitchen|$Q room].",
      "$A keeps the $c $t [on the table|under the bed|in $P room].",
      "$A does not own the $d $u, because it belongs to $B.", "the $t of $A is $c.",
      "the $u of $B is $d.", "$B would like to have a $c $t too.",
      "a $c $t is not a $d $t, and $A knows that well.", "$X got the $c $t from $P mother.",
      "$B paid $4 coins for the $d $u.", "$A and $B are [good friends|cousins|neighbours].",
      "so $A has the $t and $B has the $u.", "nobody else has a $d $u like $B."}},
    {"[One day|On $D|Last $D] $A went to $M [by train|by boat|by car|on foot].",
     {"$X stayed in $M for $1 days.", "in $M $A met $B.", "$B lives in $M.",
      "$B showed $O the [old bridge|market|harbour|station|zoo] of $M.",
      "the people of $M were [kind|friendly|busy|quiet|joyful|lazy].",
      "$A [bought|found] a $c $t in $M.", "$X liked $M more than $N.",
      "$A lives in $N, far from $M.",
      "on the way from $N to $M $A read a [long|short|good|new] book.", "$B has never been to $N.",
      "in the evening $A and $B had $F food.", "then $A went back from $M to $N.",
      "the way from $N to $M is $4 miles long.", "$A wrote to $B as soon as $X was back in $N."}},
    {"$A likes $F food, but $B prefers $G food.",
     {"$A [cooks|eats|makes] $F food every $D.", "$B often cooks $G food for $Q friends.",
      "the best $F food in $M is cheap.", "$G food is more expensive in $M.",
      "$A asked $B for a [good|cheap|new] place with $G food.",
      "at the $L you can get $F food [all day|in the evening|until late].",
      "$B went to the $L with $A.", "$X had $1 plates of $F soup.",
      "for families the $L has a [large|big|long] table.", "$B says that $G food is healthy.",
      "the prices at the $L are [low|fair|high].", "$A paid $4 coins for dinner.",
      "children are always welcome at home when $A cooks.", "$F food and $G food are both good."}},
    {"[Do you know|Have you seen|Have you heard of] the $L in $M?",
     {"the $L is a [small|large|famous|new|modest] $K.", "$A works at the $L.",
      "$A opened the $L $1 years ago.",
      "you find the $L [near|behind|opposite] the "
      "[station|market|harbour|river|old town|city centre].",
      "the cook of the $L is called $B.", "$B learned to cook $F food in $N.",
      "people from $N come to the $L for the $F food.", "the door of the $L is $c.",
      "the $L is [cheap|not cheap|quite expensive|fairly cheap], and many families go there.",
      "every $D the $L closes at $1.", "a $d $u hangs above the bar of the $L.",
      "most people in $M have been to the $L.", "a $K needs a good cook, says $A.",
      "the $L has $4 chairs.", "the riverside is not far from the $L."}},
    {"\"[Where is|Have you got|Have you seen] my $c $t?\" asked $A.",
     {"\"the $c $t is in the $d box,\" said $B.", "$B had seen the $c $t [at home|in the garden].",
      "\"yes, I have seen the $t,\" said $B.", "\"no, that is a $d $t,\" said $A.",
      "$A had lost the $c $t on $D.", "$A thanked $B for the $t.",
      "$X looked for the $t [all day|for $1 hours|everywhere].", "$A said yes, but $B said no.",
      "\"is it yours, $A?\" asked $B. \"yes, it is,\" said $A.",
      "\"do you have a $d $u?\" asked $A. \"no,\" said $B.",
      "\"who gave it to you, $A?\" asked $B.", "\"I like your $t, $A,\" said $B.",
      "at last $A had $P $c $t again."}},
    {"$A gave $P $c $t to $B.",
     {"now $B has the $c $t.", "now the $c $t belongs to $B.", "$A does not have the $t any more.",
      "$B gave a $d $u to $A.", "in return $A got the $d $u.",
      "$X was [happy|glad|sad] to give the $t away.", "$B carried the $c $t home to $M.",
      "before that the $c $t belonged to $A.", "$Y put the $t next to $Q bed.",
      "it was the [first|last|best] $t that $A ever had.", "$B thanked $A for the $c $t.",
      "$A said that $B should keep the $t.", "$B has the $t, and $A has the $u."}},
    {"The sign at the $L [said|says] \"[OPEN FROM $1 TO $4|CLOSED ON $^D|WELCOME TO $^M]\".",
     {"another sign said \"WHERE IS THE $^c $^t?\".", "\"[SELECT|COUNT] YOUR $^t!\" it said.",
      "$A read: \"SELECT THE BEST FOOD FROM $^M\".", "\"MAX $4 PEOPLE, MIN $1 PEOPLE\", $B read.",
      "$A wrote \"[NO $^t HERE|$^c $^t FOR SALE|COUNT THE $^t]\" on the door.",
      "below stood (in $c letters) \"$^L\".", "\"AVG. PRICE: $4\", it said.",
      "$B saw the name $^A on the wall.", "\"FROM $^M TO $^N\" was written on the train.",
      "the letters were $c.", "$A could read the sign from far away.",
      "'$A was here' stood on the wall.", "someone had written '$B' below '$A'.",
      "$B asked what \"[WHERE|SELECT|FROM|COUNT|MAX|MIN|AVG]\" means."}},
    {"$A [counts|counted] the [money|toys|coins]: $1 + $2 = $3.",
     {"$B counts too: $2 + $1 = $3.", "so $3 - $1 = $2.", "$4 > $1, says $B.", "and $1 < $4.",
      "list: $1 cups; $2 hats; $4 bags.", "$A has $1 of them; $B has $2.",
      "together $A and $B have $3.", "$3 (that is, $1 and $2) is right.",
      "$A is $5 years old, and $B is $1 years older.", "one $t costs $1, two cost more.",
      "$1 and $2 make $3.", "the highest number is $4.", "$B has fewer than $4 coins.",
      "how many is that? it is $3.", "$1 * 1 = $1."}},
    {"$A ($M, $5) and $B ($N, $1) are [friends|cousins|neighbours].",
     {"$A comes from $M.", "$B comes from $N.", "$A is $5 years old.", "$B is only $1.",
      "$A lives in $M and has a $c $t.", "$B lives in $N and has a $d $u.",
      "in $M $A works at the $L.", "$P favourite colour is $c.", "the $t of $A is $c.",
      "$A is older than $B.", "$B wants to visit $A in $M.", "$A wants to visit $B in $N.",
      "people in $N know $B well."}},
    {"Dear $A, [how are you?|I hope you are well!|thank you for the $t!]",
     {"I am in $M now, and $M is [lovely|very old|quiet|full of people].",
      "on $D I saw a $c $t and thought of you.", "$F food is [very good|not my favourite] here.",
      "my room is at the $L.", "please send me my $d $u.", "the $u is $d, you cannot miss it.",
      "it costs $4 coins to come from $N to $M.", "say hello to everyone in $N!",
      "my friends at the $L say hello, $A.", "we will meet in $N on $D.",
      "do you still have the $c $t?", "write soon; letters take $1 days. Yours, $B."}},
};

typedef struct document {
    const char *name[2], *city[2], *food[2], *colour[2], *thing[2], *kind, *day;
    char place[32], number[5][12];
    bool woman[2];
} document;

static const char *const kinds[] = {"restaurant", "pub", "cafe", "bar", "shop", "hotel"};
static const char *const days[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                   "Friday", "Saturday", "Sunday"};

static void pick_two(pb_rng *r, const pb_words *w, const char *out[2])
{
    size_t i = pb_rng_below(r, w->n), j = pb_rng_below(r, w->n - 1);
    out[0] = w->word[i];
    out[1] = w->word[j + (j >= i)];
}

// The list of names alternates between women and men.
static bool is_woman(const char *name)
{
    size_t i = 0;
    while (pb_names.word[i] != name)
        i++;
    return i % 2 == 0;
}

static void draw_entities(document *d, pb_rng *r)
{
    pick_two(r, &pb_names, d->name);
    pick_two(r, &pb_cities, d->city);
    pick_two(r, &pb_foods, d->food);
    pick_two(r, &pb_colours, d->colour);
    pick_two(r, &pb_things, d->thing);
    d->kind = kinds[pb_rng_below(r, sizeof kinds / sizeof *kinds)];
    d->day = days[pb_rng_below(r, 7)];
    const char *first = pb_pick(r, &pb_place_first);
    snprintf(d->place, sizeof d->place, "%s %s", first, pb_pick(r, &pb_place_last));
    int a = 2 + (int)pb_rng_below(r, 19), b = 2 + (int)pb_rng_below(r, 19);
    int number[5] = {a, b, a + b, 41 + (int)pb_rng_below(r, 959), 21 + (int)pb_rng_below(r, 70)};
    for (int i = 0; i < 5; i++)
        snprintf(d->number[i], sizeof d->number[i], "%d", number[i]);
    for (int i = 0; i < 2; i++)
        d->woman[i] = is_woman(d->name[i]);
}

static const char *entity(const document *d, char code)
{
    switch (code) {
    case 'A':
    case 'B':
        return d->name[code - 'A'];
    case 'X':
    case 'Y':
        return d->woman[code - 'X'] ? "she" : "he";
    case 'P':
    case 'Q':
        return d->woman[code - 'P'] ? "her" : "his";
    case 'O':
        return d->woman[0] ? "her" : "him";
    case 'R':
        return d->woman[1] ? "her" : "him";
    case 'c':
    case 'd':
        return d->colour[code - 'c'];
    case 't':
    case 'u':
        return d->thing[code - 't'];
    case 'M':
    case 'N':
        return d->city[code - 'M'];
    case 'F':
    case 'G':
        return d->food[code - 'F'];
    case 'L':
        return d->place;
    case 'K':
        return d->kind;
    case 'D':
        return d->day;
    default:
        return d->number[code - '1'];
    }
}

// The alternatives of [a|b|c], s just behind the bracket: copies one of them to `out` and returns
// where the text goes on.
static const char *choose(char *out, size_t size, const char *s, pb_rng *r)
{
    size_t n = 1;
    for (const char *p = s; *p != ']'; p++)
        n += *p == '|';
    for (size_t skip = pb_rng_below(r, n); skip; s++)
        skip -= *s == '|';
    snprintf(out, size, "%.*s", (int)strcspn(s, "|]"), s);
    return strchr(s, ']') + 1;
}

static void put_plain(pb_line *l, const char *s, const document *d)
{
    for (; *s; s++) {
        if (*s != '$') {
            pb_put(l, "%c", *s);
            continue;
        }
        bool capitals = *++s == '^';
        s += capitals;
        for (const char *e = entity(d, *s); *e; e++)
            pb_put(l, "%c", capitals ? toupper((unsigned char)*e) : *e);
    }
}

static void put_sentence(pb_line *l, const char *s, const document *d, pb_rng *r)
{
    char part[128];
    size_t start = l->n;
    while (*s) {
        size_t n = strcspn(s, "[");
        snprintf(part, sizeof part, "%.*s", (int)n, s);
        put_plain(l, part, d);
        s += n;
        if (*s) {
            s = choose(part, sizeof part, s + 1, r);
            put_plain(l, part, d);
        }
    }
    // Sentences are written in lower case, as an entity may come first; a quotation mark or
    // bracket may come before the first letter.
    size_t first = start + strspn(l->text + start, "\"'( ");
    l->text[first] = (char)toupper((unsigned char)l->text[first]);
}

static void write_document(pb_line *l, pb_rng *r)
{
    document d;
    draw_entities(&d, r);
    const topic *t = &topics[pb_rng_below(r, sizeof topics / sizeof *topics)];
    size_t n = 0, order[MAX_SENTENCES];
    while (n < MAX_SENTENCES && t->more[n]) {
        order[n] = n;
        n++;
    }
    pb_rng_shuffle(r, order, n);
    size_t sentences = 2 + pb_rng_below(r, 5);
    // Some documents are written line by line, so that the byte is known.
    const char *gap = pb_rng_below(r, 4) ? " " : "\n";
    *l = (pb_line){.n = 0};
    put_sentence(l, t->opening, &d, r);
    for (size_t i = 0; i < sentences; i++) {
        pb_line one = {.n = 0};
        put_sentence(&one, t->more[order[i]], &d, r);
        if (l->n + 1 + one.n <= MAX_DOCUMENT)
            pb_put(l, "%s%s", gap, one.text);
    }
    pb_put(l, "\n\n");
}

pb_err pb_plaintext(uint64_t seed, size_t bytes, char **text)
{
    *text = NULL;
    pb_line l;
    char *out = bytes < SIZE_MAX - sizeof l.text ? malloc(bytes + sizeof l.text) : NULL;
    if (!out)
        return pb_fail(PB_MEMORY, "ask for less text", "no memory for %zu bytes of text", bytes);
    pb_rng r = pb_rng_make(seed, PB_STREAM_TASK, (uint32_t)pb_meaning("plaintext"));
    size_t n = 0;
    while (n < bytes) {
        write_document(&l, &r);
        memcpy(out + n, l.text, l.n);
        n += l.n;
    }
    out[n] = 0;
    *text = out;
    return PB_OK;
}
