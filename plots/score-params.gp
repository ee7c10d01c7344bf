# Score against trainable parameters: one panel per task, points with 95 % intervals.
columns = panels < 3 ? panels : 3
lines = (panels + columns - 1) / columns
panel = 200
stride = 282
legend = 70 + 7.6 * widest
W = 64 + stride * (columns - 1) + panel + legend
H = 318 * lines + 4
H = H > 46 + 23 * nseries ? H : 46 + 23 * nseries
load scripts.'/style.gp'
set multiplot
stats input using 4 nooutput name 'X'
set logscale x 10
set xlabel 'trainable parameters' offset 0,0.3
xlo = X_min / 1.8
xhi = X_max * 1.8
set xrange [xlo:xhi]
wide = xhi / xlo > 40
set xtics ()
k = floor(log10(xlo))
while (10 ** k <= xhi) {
    do for [d = 1:9] {
        name = gprintf('%.0s%c', d * 10.0 ** k)
        shown = wide ? d == 1 : d == 1 || d == 2 || d == 5
        if (shown) { set xtics add (name d * 10.0 ** k 0) }
        if (!shown) { set xtics add ('' d * 10.0 ** k 1) }
    }
    k = k + 1
}
# Methods of one budget share one x: they are set side by side, 9 % apart.
apart_(i) = 1.09 ** (i - 0.5 * (nseries + 1))
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 34 - l * 318
    x0 = 64 + stride * c
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + panel)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - 226)
    set title word(titles, p + 1) offset 0,-0.4
    lo = real(word(lows, p + 1))
    hi = real(word(highs, p + 1))
    if (hi < lo) { set label 9 'no complete run' at graph 0.5,0.5 center tc rgb '#666666' }
    if (!(hi < lo)) { unset label 9 }
    if (lo < hi) { set yrange [*:*] }
    if (lo >= hi) { set yrange [(lo > hi ? 0 : lo - 1):hi + 1] }
    set ylabel word(metrics, p + 1) offset 0.8,0
    if (p == columns - 1) {
        set key at screen left_(W - legend + 14), screen bottom_(top) left top reverse Left \
            maxrows 99 samplen 1.5 spacing 1.25 width 0
    } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using ($4 * apart_(i)):5 with lines \
            ls style_of(word(styles, i)) lw 1 notitle, \
        for [i = 1:nseries] input index p * nseries + i - 1 using ($4 * apart_(i)):5:6:7 \
            with yerrorbars ls style_of(word(styles, i)) dt 1 title word(series, i)
}
unset multiplot
