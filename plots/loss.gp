# Training loss: mean over seeds of the smoothed curve, band from the smallest to the largest seed.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
stats input using 3 nooutput name 'S'
set multiplot
set xlabel 'step' offset 0,xname_at
set format y '%.1f'
set xrange [S_min:(S_max > S_min ? S_max : S_min + 1)]
set xtics step_(S_max - S_min, columns == 3 ? 4 : 6)
set style fill transparent solid (nseries > 8 ? 0.08 : 0.16) noborder
do for [p = 0:panels - 1] {
    eval place
    if (int(word(filled, p + 1)) == 0) { eval empty } else { unset label 9 }
    if (int(word(filled, p + 1))) { set yrange [*:*] } else { set yrange [0:1] }
    if (c == 0) { yname = 'loss (nat per token)'; eval put_yname } else { unset label 8 }
    if (p == panels - 1) { eval legend } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:5:6 with filledcurves \
            fc ls style_of(word(styles, i)) notitle, \
        for [i = 1:nseries] input index p * nseries + i - 1 using 3:4 with linespoints \
            ls style_of(word(styles, i)) lw (nseries > 8 ? 1.2 : 1.6) pointnumber 7 \
            title word(series, i)
}
unset multiplot
