# Training loss: mean over seeds of the smoothed curve, band from the smallest to the largest seed.
columns = panels < 3 ? panels : 3
lines = (panels + columns - 1) / columns
legend = 190
W = 64 + 262 * columns + legend
H = 318 * lines + 4
load scripts.'/style.gp'
set multiplot
set xlabel 'step' offset 0,0.3
set xtics autofreq
do for [p = 0:panels - 1] {
    c = p % columns
    l = p / columns
    top = H - 34 - l * 318
    x0 = 64 + 262 * c
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + 212)
    set tmargin at screen bottom_(top)
    set bmargin at screen bottom_(top - 226)
    set title word(titles, p + 1) offset 0,-0.4
    if (c == 0) { set ylabel 'loss (nat per token)' offset 0.8,0 } else { unset ylabel }
    if (p == columns - 1) {
        set key at screen left_(W - legend + 4), screen bottom_(top) left top reverse Left \
            samplen 3 spacing 1.25 width 0
    } else { unset key }
    stats input index p * nseries using 3 nooutput name 'S'
    set xtics autofreq
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:5:6 with filledcurves \
            fc ls style_of(word(styles, i)) notitle, \
        for [i = 1:nseries] input index p * nseries + i - 1 using 3:4 with lines \
            ls style_of(word(styles, i)) title word(series, i)
}
unset multiplot
