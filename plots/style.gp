# What all figures share. Before it is loaded, W and H hold the size in pixels; the program sets
# `term` (svg or png) and `output`.
#
# Colours: Okabe and Ito's palette, told apart with any colour vision. Every style also has its own
# point and dash, so that a grey print reads as well.
if (term eq 'svg') {
    set terminal svg size W,H dynamic font 'DejaVu Sans,12' background '#ffffff' rounded
} else {
    set terminal pngcairo size 2*W,2*H font 'DejaVu Sans,12' fontscale 1.5 linewidth 2 \
        pointscale 2 background '#ffffff' rounded
}
set output output
set termoption noenhanced
set encoding utf8
set datafile separator tab
set datafile missing 'NaN'

set style line 1 lc rgb '#0072B2' pt 7  dt 1            lw 1.8 ps 0.8
set style line 2 lc rgb '#D55E00' pt 5  dt (9,3)        lw 1.8 ps 0.75
set style line 3 lc rgb '#009E73' pt 9  dt (4,3)        lw 1.8 ps 0.9
set style line 4 lc rgb '#CC79A7' pt 13 dt (9,3,2,3)    lw 1.8 ps 0.95
set style line 5 lc rgb '#E69F00' pt 11 dt (2,3)        lw 1.8 ps 0.9
set style line 6 lc rgb '#56B4E9' pt 6  dt 1            lw 1.8 ps 0.8
set style line 7 lc rgb '#7A5C00' pt 4  dt (9,3)        lw 1.8 ps 0.75
set style line 8 lc rgb '#5B3FA0' pt 8  dt (4,3)        lw 1.8 ps 0.9
set style line 9 lc rgb '#A11D33' pt 12 dt (9,3,2,3)    lw 1.8 ps 0.95
set style line 10 lc rgb '#30706B' pt 10 dt (2,3)       lw 1.8 ps 0.9
# Anchors: base, none (hooks that do nothing), merged, full fine-tuning.
set style line 20 lc rgb '#222222' pt 2 dt 1     lw 1.6 ps 0.7
set style line 21 lc rgb '#777777' pt 1 dt (2,3) lw 1.6 ps 0.7
set style line 22 lc rgb '#555555' pt 3 dt (9,3) lw 1.6 ps 0.7
set style line 23 lc rgb '#999999' pt 3 dt (4,3) lw 1.6 ps 0.7
# More methods than styles: they repeat.
style_of(word_) = int(word_) >= 20 ? int(word_) : 1 + (int(word_) - 1) % 10

set style line 100 lc rgb '#444444' lw 1
set style line 101 lc rgb '#dddddd' lw 0.8 dt 1
set border 3 ls 100
set tics nomirror out scale 0.6 tc rgb '#222222'
set grid ls 101 back
set style fill transparent solid 0.16 noborder

# A step of 1, 2 or 5 times a power of ten that divides `span` into at most n parts.
power_(x) = 10.0 ** floor(log10(x))
nice_(x) = x <= power_(x) ? power_(x) : x <= 2 * power_(x) ? 2 * power_(x) : \
    x <= 5 * power_(x) ? 5 * power_(x) : 10 * power_(x)
step_(span, n) = span > 0 ? nice_(real(span) / n) : 1.0

# Margins of panel p (0..panels-1) in pixels, turned into screen coordinates.
left_(x)   = real(x) / W
bottom_(y) = real(y) / H
