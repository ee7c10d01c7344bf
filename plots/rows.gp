# One panel per task, one line per method: a point or bar with its 95 % interval. `zero` draws a line
# at 0, `bars` draws bars from there; `below` ('-': nothing) stands below all of them.
columns = panels < 4 ? panels : 4
lines = (panels + columns - 1) / columns
cell = 17 * places + 10
names_width = 16 + 6.5 * widest
names_width = names_width > 300 ? 300 : names_width
pitch = cell + (below eq '-' ? 86 : 74)
across = (690.0 - names_width) / columns
foot = below eq '-' ? 4 : 20
H = lines * pitch + foot
load scripts.'/style.gp'
set multiplot
unset key

set yrange [0.4:places + 0.6]
set grid x y ls 101 back
set bars 0.6
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 28 - l * pitch
    x0 = names_width + across * c
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + across - 14)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - cell)
    set title word(titles, p + 1) offset 0,-0.5
    set xlabel word(metrics, p + 1) offset 0,xname_at
    lo = real(word(lows, p + 1))
    hi = real(word(highs, p + 1))
    if (hi < lo) { set label 9 'no complete run' at graph 0.5,0.5 center tc rgb '#666666' } else { unset label 9 }
    if (hi < lo) { lo = 0; hi = 1 }
    if (zero) { lo = lo > 0 ? 0 : lo; hi = hi < 0 ? 0 : hi }
    pad = hi > lo ? 0.06 * (hi - lo) : 1
    set xrange [lo - pad:hi + pad]
    set xtics step_(hi - lo, 4)
    unset ytics
    set ytics nomirror scale 0 ()
    do for [i = 1:rows] {
        if (c == 0) { set ytics add (word(names, i) real(word(positions, i))) }
        if (c > 0) { set ytics add ('' real(word(positions, i))) }
    }
    note = word(references, p + 1)
    if (note ne '-') {
        set label 1 note at screen left_(x0 + across - 14), screen bottom_(top - cell - 50) \
            right font ',10' tc rgb '#666666'
    } else { unset label 1 }
    if (below ne '-' && p == 0) {
        set label 2 below at screen left_(0.5 * (names_width + W)), screen bottom_(10) center
    } else { unset label 2 }
    if (zero) { set arrow 1 from 0, graph 0 to 0, graph 1 nohead ls 102 back }
    if (bars) {
        plot input index p using (0.5 * $5):3:(0):5:($3 - 0.36):($3 + 0.36) with boxxyerror \
                fs solid 0.35 border rgb '#333333' fc rgb '#5B8FB9', \
            input index p using 5:3:6:7 with xerrorbars lc rgb '#222222' lw 1.4 pt 7 ps 0.3
    } else {
        plot for [i = 0:rows - 1] input index p every ::i::i using 5:3:6:7 \
            with xerrorbars ls style_of(word(styles, i + 1)) dt 1
    }
}
unset multiplot
