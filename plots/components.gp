# Time of steps per row, by component: a stacked bar for each method.
xroom = 24
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
p = 0
eval place
set title ''
set style data histograms
set style histogram rowstacked
set style fill solid 0.85 noborder
set boxwidth 0.6
set xrange [-0.6:rows - 0.4]
set yrange [0:*]
set xtics scale 0 ()
do for [i = 1:rows] { set xtics add (word(names, i) i - 1) }
set grid y noxtics ls 101 back
yname = 'microseconds per row'
eval put_yname
eval legend
colours = '#0072B2 #E69F00 #D55E00 #009E73 #999999'
plot for [k = 1:nseries] input using (column(k + 1)) lc rgb word(colours, k) title word(series, k)
unset multiplot
