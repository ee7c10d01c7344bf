# Loss of a pretraining run, from its loss.csv, against the tokens trained on: the training loss, as
# logged and averaged over bins, and the validation loss. The right-hand axis says the same in bits
# per byte of the validation text; simple models can stand there for comparison.
#
#   gnuplot -e "term='svg'; output='loss.svg'; input='loss.csv'" paper/backbone/loss.gp
#
# Variables: term, svg or png; output; input; and, all optional,
#   bytes_per_token   valid_bytes_per_token of recipe.json: without it there is no axis in bits
#   references        names (without blanks) and bits per byte: 'xz 2.33 4-gram 1.65'
#   bins              points of the averaged curve (100)
#   style             plots/style.gp, when not run from the project's folder
if (!exists('style')) { style = 'plots/style.gp' }
if (!exists('bins')) { bins = 100 }
if (!exists('references')) { references = '' }
W = 640
H = 400
load style
set datafile separator comma

# Lines about training have tokens, lines about validation only the step.
stats input using 1:2 every ::1 nooutput name 'T'
million(tokens) = tokens / 1e6
tokens_at(step) = T_slope * step + T_intercept
last = T_max_y
bin(tokens) = (floor(tokens / last * bins * 0.999999) + 0.5) * last / bins

# The fall of the first steps would flatten all the rest.
stats input using ($2 > 0.015 * last ? $3 : NaN) every ::1 nooutput name 'L'
stats input using 6 every ::1 nooutput name 'V'
lo = V_records > 0 && V_min < L_min ? V_min : L_min
hi = L_max

bits = exists('bytes_per_token') ? 1 / (bytes_per_token * log(2)) : 1
if (exists('bytes_per_token')) {
    do for [i = 1:words(references) / 2] {
        y = word(references, 2 * i) / bits
        if (y < lo) { lo = y }
        if (y > hi) { hi = y }
    }
}
pad = hi > lo ? 0.05 * (hi - lo) : 0.1
set xrange [0:million(last) * 1.02]
set yrange [lo - pad:hi + pad]
set xlabel 'tokens (million)' offset 0,0.3
set ylabel 'loss (nat per token)' offset 0.8,0
set ytics step_(hi - lo, 6)
set xtics step_(million(last), 6)
set format y '%.1f'
set lmargin at screen left_(64)
set rmargin at screen left_(W - (exists('bytes_per_token') ? 76 : 20))
set tmargin at screen bottom_(H - 16)
set bmargin at screen bottom_(52)
set key top right reverse Left samplen 3 spacing 1.25 opaque
if (exists('bytes_per_token')) {
    set border 11 ls 100
    set link y2 via y * bits inverse y / bits
    set y2tics step_((hi - lo) * bits, 6) format '%.2f'
    set y2label 'bit per byte' offset -0.8,0
    do for [i = 1:words(references) / 2] {
        value = word(references, 2 * i) / bits
        set arrow i from graph 0, first value to graph 1, first value nohead back \
            lc rgb '#777777' lw 1.2 dt (4,3)
        set label i sprintf('%s %.2f', word(references, 2 * i - 1), value * bits) \
            at graph 0.25, first value offset 0,0.5 left font ',10' tc rgb '#444444'
    }
}
plot input using (million($2)):3 every ::1 with lines lc rgb '#bcd5e6' lw 0.7 \
        title 'training, as logged', \
    input using (million(bin($2))):3 every ::1 smooth unique with lines ls 1 \
        title 'training, averaged', \
    input using (million(tokens_at($1))):6 every ::1 with linespoints ls 2 title 'validation'
