# Training loss: mean over seeds of the smoothed curve, band from the smallest to the largest seed.
columns = panels < 3 ? panels : 3
lines = (panels + columns - 1) / columns
panel = 212
legend = 96 + 7.6 * widest
W = 64 + 262 * (columns - 1) + panel + legend
H = 318 * lines + 4
H = H > 46 + 23 * nseries ? H : 46 + 23 * nseries
load scripts.'/style.gp'
stats input using 3 nooutput name 'S'
set multiplot
set xlabel 'step' offset 0,0.3
set format y '%.1f'
set xrange [S_min:(S_max > S_min ? S_max : S_min + 1)]
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 34 - l * 318
    x0 = 64 + 262 * c
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + panel)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - 226)
    set title word(titles, p + 1) offset 0,-0.4
    if (int(word(filled, p + 1)) == 0) { set label 9 'no complete run' at graph 0.5,0.5 center tc rgb '#666666' }
    if (!(int(word(filled, p + 1)) == 0)) { unset label 9 }
    if (int(word(filled, p + 1))) { set yrange [*:*] } else { set yrange [0:1] }
    if (c == 0) { set ylabel 'loss (nat per token)' offset 0.8,0 } else { unset ylabel }
    if (p == columns - 1) {
        set key at screen left_(W - legend + 14), screen bottom_(top) left top reverse Left \
            maxrows 99 samplen 3 spacing 1.25 width 0
    } else { unset key }
    set xtics step_(S_max - S_min, 4)
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:5:6 with filledcurves \
            fc ls style_of(word(styles, i)) notitle, \
        for [i = 1:nseries] input index p * nseries + i - 1 using 3:4 with lines \
            ls style_of(word(styles, i)) title word(series, i)
}
unset multiplot
