# Score against trainable parameters: one panel per task, points with 95 % intervals, and the line
# of the best score at or below a size. Points of like size are drawn up to 5 % apart.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
set logscale x 10
set xlabel 'trainable parameters' offset 0,xname_at
set xrange [xlo:xhi]
set bars 0.5
wide = xhi / xlo
set xtics ()
k = floor(log10(xlo))
while (10 ** k <= xhi) {
    do for [d = 10:99] {
        v = d * 10.0 ** (k - 1)
        whole = d % 10 == 0
        name = v >= 1e3 && v < 1e6 && abs(v / 1e3 - floor(v / 1e3 + 0.5)) > 1e-6 ? gprintf('%.1s%c', v) : gprintf('%.0s%c', v)
        shown = wide > 40 ? d == 10 : wide > 3 ? d == 10 || d == 20 || d == 50 : \
            wide > 1.6 ? d == 10 || d == 12 || d == 15 || d == 20 || d == 30 || d == 50 || d == 70 : d % 2 == 0
        if (shown) { set xtics add (name v 0) }
        if (!shown && whole) { set xtics add ('' v 1) }
    }
    k = k + 1
}
do for [p = 0:panels - 1] {
    eval place
    lo = real(word(lows, p + 1))
    hi = real(word(highs, p + 1))
    if (hi < lo) { eval empty } else { unset label 9 }
    if (lo < hi) { set yrange [lo - 0.05 * (hi - lo):hi + 0.05 * (hi - lo)] }
    if (lo >= hi) { set yrange [(lo > hi ? 0 : lo - 1):hi + 1] }
    yname = word(metrics, p + 1)
    eval put_yname
    if (p == panels - 1) { eval legend } else { unset key }
    block = p * nseries
    plot input index block + nseries - 1 using 8:5 with steps ls 102 lw 1.6 \
            title word(series, nseries), \
        for [i = 1:nseries - 1] input index block + i - 1 using 8:5 with lines \
            ls style_of(word(styles, i)) lw 1 notitle, \
        for [i = 1:nseries - 1] input index block + i - 1 using 8:5:6:7 \
            with yerrorbars ls style_of(word(styles, i)) dt 1 lw 1.2 title word(series, i)
}
unset multiplot
