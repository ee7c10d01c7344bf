# A panel for each axis: `titles` names it. The program sets `xlows` and `xhighs`, `lows` and `highs`,
# and `yname`; a curve that an axis does not have shows nothing there.
xroom = 30
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
set logscale x 2
set logscale y 10
do for [p = 0:panels - 1] {
    eval place
    xlo_ = real(word(xlows, p + 1))
    xhi_ = real(word(xhighs, p + 1))
    set xrange [xlo_ / 1.2:xhi_ * 1.2]
    set xtics ()
    x_ = xlo_
    while (x_ <= xhi_) {
        set xtics add (sprintf('%g', x_) x_)
        x_ = x_ * (xhi_ / xlo_ > 100 ? 4 : 2)
    }
    ylo_ = real(word(lows, p + 1)) / 1.5
    yhi_ = real(word(highs, p + 1)) * 1.5
    set yrange [ylo_:yhi_]
    eval log_ticks
    if (c == 0) { eval put_yname } else { unset label 8 }
    if (p == panels - 1) { eval legend } else { unset key }
    # The legend names all curves, also those that the last panel does not have.
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:4 with linespoints ls i lw 1.4 \
            notitle, \
        for [i = 1:nseries] keyentry with linespoints ls i lw 1.4 title word(series, i)
}
unset multiplot
