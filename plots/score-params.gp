# Score against trainable parameters: one panel per task, points with 95 % intervals.
columns = panels < 3 ? panels : 3
lines = (panels + columns - 1) / columns
legend = 130
W = 64 + 262 * columns + legend
H = 318 * lines + 4
load scripts.'/style.gp'
set multiplot
set logscale x 10
set format x '10^{%T}'
set xlabel 'trainable parameters' offset 0,0.3
stats input using 4 nooutput name 'X'
# At least a decade, so that equal budgets do not look apart.
xlo = X_min / 2.2
xhi = X_max * 2.2
set xrange [xlo:xhi]
set xtics 10 enhanced
set mxtics 10
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 34 - l * 318
    x0 = 64 + 262 * c
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + 200)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - 226)
    set title word(titles, p + 1) offset 0,-0.4
    set ylabel word(metrics, p + 1) offset 0.8,0
    if (p == columns - 1) {
        set key at screen left_(W - legend + 6), screen bottom_(top) left top reverse Left \
            samplen 1.5 spacing 1.25 width 0
    } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 4:5 with lines \
            ls style_of(word(styles, i)) lw 1 notitle, \
        for [i = 1:nseries] input index p * nseries + i - 1 using 4:5:6:7 with yerrorbars \
            ls style_of(word(styles, i)) dt 1 title word(series, i)
}
unset multiplot
