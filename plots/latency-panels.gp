# Two panels over the size of the batch or the number of tenants; `ycol`, `ylow`, `yhigh` and `yname`
# say what is drawn (token-time.gp, throughput.gp).
legend = 120
W = 70 + 2 * 300 + legend
H = 330
load scripts.'/style.gp'
set multiplot
set logscale x 2
set xrange [xlo / 1.15:xhi * 1.15]
set xtics ()
t = xlo
do while (t <= xhi) { set xtics add (sprintf('%g', t) t); t = 2 * t }
set xlabel xname offset 0,0.3
stats input using yhigh nooutput name 'Y'
stats input using ylow nooutput name 'Z'
set yrange [0:Y_max * 1.06]
panel_titles = "one\u00A0adapter\u00A0for\u00A0all a\u00A0different\u00A0adapter\u00A0each"
do for [p = 0:1] {
    x0 = 70 + 300 * p
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + 262)
    set tmargin at screen bottom_(H - 34)
    set bmargin at screen bottom_(62)
    set title word(panel_titles, p + 1) offset 0,-0.4
    if (p == 0) { set ylabel yname offset 0.6,0 } else { unset ylabel }
    if (p == 1) {
        set key at screen left_(W - legend + 2), screen bottom_(H - 34) left top reverse Left \
            samplen 3 spacing 1.25 width 0
    } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:ycol:ylow:yhigh \
            with yerrorlines ls style_of(word(styles, i)) title word(series, i)
}
unset multiplot
