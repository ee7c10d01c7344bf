# Scores with 95 % intervals: one panel per task, one line per method.
columns = panels < 3 ? panels : 3
lines = (panels + columns - 1) / columns
cell = 24 * rows + 30
names = 190
W = names + 250 * columns
H = lines * (cell + 96) + 6
load scripts.'/style.gp'
set multiplot
unset key
set yrange [0.4:rows + 0.6]
set grid x y ls 101 back
set style line 102 lc rgb '#777777'
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 36 - l * (cell + 96)
    set lmargin at screen left_(names + 250 * c)
    set rmargin at screen left_(names + 250 * c + 222)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - cell)
    set title word(titles, p + 1) offset 0,-0.4
    set xlabel word(metrics, p + 1) offset 0,0.4
    set xtics autofreq rangelimited
    stats input index p using 6 nooutput name 'A'
    stats input index p using 7 nooutput name 'B'
    A_min = exists('A_min') ? A_min : 0
    B_max = exists('B_max') ? B_max : 1
    pad = B_max > A_min ? 0.06 * (B_max - A_min) : 0.5
    set xrange [A_min - pad:B_max + pad]
    step = (B_max - A_min) / 3.5
    mag = step > 0 ? 10 ** floor(log10(step)) : 1
    set xtics (step / mag > 5 ? 10 * mag : step / mag > 2 ? 5 * mag : step / mag > 1 ? 2 * mag : mag)
    if (c == 0) { set format y '%s' } else { set format y '' }
    note = word(references, p + 1)
    if (note ne '-') {
        set label 1 note at screen left_(names + 250 * c + 222), screen bottom_(top - cell - 50) \
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
