# Panels above one legend. Before: `panels`, `nseries`, `widest` (characters of the longest name) and
# `xroom`, the pixels below an axis. After: `eval place` sets the margins of panel `p`, `eval legend`
# puts the legend, which belongs to one of the plots.
columns = panels < 3 ? panels : panels == 4 ? 2 : 3
lines = (panels + columns - 1) / columns
across = 690 / columns
high = columns == 1 ? 260 : columns == 2 ? 220 : 180
pitch = high + 34 + xroom
key_columns = int(674 / (54 + 6.9 * widest))
key_columns = key_columns < 1 ? 1 : key_columns > nseries ? nseries : key_columns
key_rows = (nseries + key_columns - 1) / key_columns
H = pitch * lines + 16.5 * key_rows + 8
place = "c = p % columns; l = p / columns; top = H - 28 - l * pitch; x0 = across * c + 56; \
    set lmargin at screen left_(x0); set rmargin at screen left_(across * (c + 1) - 14); \
    set tmargin at screen bottom_(top); set bmargin at screen bottom_(top - high); \
    title = exists('titles') ? word(titles, p + 1) : ''; set title title offset 0,-0.5"
legend = "set key at screen left_(14), screen bottom_(16.5 * key_rows + 4) left top vertical \
    reverse Left maxrows key_rows samplen 2.6 spacing 1.15 width 0.5"
# `yname` at the left edge, however wide the ticks' numbers are.
put_yname = "set label 8 yname at screen left_(x0 - 45), graph 0.5 center rotate"
# Panel p without data.
empty = "set label 9 'no complete run' at graph 0.5,0.5 center tc rgb '#666666'"
# Ticks of a logarithmic y axis from `ylo_` to `yhi_`.
log_ticks = "set ytics (); k = floor(log10(ylo_)); while (10.0 ** k <= yhi_) { do for [d = 1:9] { \
    if (d == 1 || ((d == 2 || d == 5) && yhi_ / ylo_ < 300) || yhi_ / ylo_ < 6) { \
    set ytics add (sprintf('%g', d * 10.0 ** k) d * 10.0 ** k 0) } else { \
    set ytics add ('' d * 10.0 ** k 1) } }; k = k + 1 }"
