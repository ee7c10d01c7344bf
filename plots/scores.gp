# Scores with 95 % intervals: one panel per task, one line per method.
columns = panels < 3 ? panels : 3
lines = (panels + columns - 1) / columns
cell = 24 * rows + 30
names = 26 + 7.6 * widest
W = names + 250 * columns - 10
H = lines * (cell + 112) + 6
load scripts.'/style.gp'
set multiplot
unset key
set yrange [0.4:rows + 0.6]
set grid x y ls 101 back
set style line 102 lc rgb '#777777'
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 36 - l * (cell + 112)
    set lmargin at screen left_(names + 250 * c)
    set rmargin at screen left_(names + 250 * c + 222)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - cell)
    set title word(titles, p + 1) offset 0,-0.4
    set xlabel word(metrics, p + 1) offset 0,0.3
    lo = real(word(lows, p + 1))
    hi = real(word(highs, p + 1))
    pad = hi > lo ? 0.06 * (hi - lo) : 1
    set xrange [(lo < hi ? lo : hi) - pad:(lo < hi ? hi : lo) + pad]
    if (hi < lo) { set label 9 'no complete run' at graph 0.5,0.5 center tc rgb '#666666' }
    if (!(hi < lo)) { unset label 9 }
    step = step_(abs(hi - lo), 3)
    set xtics step
    if (c == 0) { set format y '%s' } else { set format y '' }
    note = word(references, p + 1)
    if (note ne '-') {
        set label 1 note at screen left_(names + 250 * c + 222), screen bottom_(top - cell - 64) \
            right font ',10' tc rgb '#666666'
    } else { unset label 1 }
    if (c == 0) {
        plot for [i = 0:rows - 1] input index p every ::i::i using 5:3:6:7:ytic(2) \
            with xerrorbars ls style_of(word(styles, i + 1)) dt 1
    } else {
        set ytics 1 format ''
        plot for [i = 0:rows - 1] input index p every ::i::i using 5:3:6:7 \
            with xerrorbars ls style_of(word(styles, i + 1)) dt 1
    }
}
unset multiplot
