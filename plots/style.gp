# What all figures share. Before it is loaded, H holds the height in pixels of a figure that is 690
# wide, the width of a page's text; the program sets `term` (svg, png or tex), `folder`, `output`,
# `input` and `scripts`.
#
# Every series has its own colour, point and dash: the colours of the first are Okabe and Ito's, told
# apart with any colour vision, and a grey print reads by the points.
W = 690
if (exists('folder')) { cd folder }
if (term eq 'svg') {
    set terminal svg size W,H dynamic font 'DejaVu Sans,12' background '#ffffff' butt
}
if (term eq 'png') {
    set terminal pngcairo size 2*W,2*H font 'DejaVu Sans,12' fontscale 1.5 linewidth 2 \
        pointscale 2 background '#ffffff' butt
}
if (term eq 'tex') { # 690 pixels are 6.5 inches; LaTeX sets the text, in \footnotesize
    set terminal cairolatex pdf input colour size 6.5in,(6.5 * H / W)in font ',8' linewidth 1.3 \
        pointscale 0.62 butt
}
set output output
# Names of x axes, in characters from where gnuplot puts them: LaTeX's letters are smaller.
xname_at = term eq 'tex' ? 0.1 : 0.5
set termoption noenhanced
set encoding utf8
set datafile separator tab
set datafile missing 'NaN'

set style line 1  lc rgb '#0072B2' pt 7  dt 1          lw 1.8 ps 0.8
set style line 2  lc rgb '#D55E00' pt 5  dt (9,3)      lw 1.8 ps 0.75
set style line 3  lc rgb '#009E73' pt 9  dt (4,3)      lw 1.8 ps 0.9
set style line 4  lc rgb '#CC79A7' pt 13 dt (9,3,2,3)  lw 1.8 ps 0.95
set style line 5  lc rgb '#E69F00' pt 11 dt (2,3)      lw 1.8 ps 0.9
set style line 6  lc rgb '#56B4E9' pt 6  dt 1          lw 1.8 ps 0.8
set style line 7  lc rgb '#7A5C00' pt 4  dt (9,3)      lw 1.8 ps 0.75
set style line 8  lc rgb '#5B3FA0' pt 8  dt (4,3)      lw 1.8 ps 0.9
set style line 9  lc rgb '#A11D33' pt 12 dt (9,3,2,3)  lw 1.8 ps 0.95
set style line 10 lc rgb '#30706B' pt 10 dt (2,3)      lw 1.8 ps 0.9
set style line 11 lc rgb '#111111' pt 15 dt 1          lw 1.8 ps 0.85
set style line 12 lc rgb '#DD1C77' pt 14 dt (9,3)      lw 1.8 ps 0.85
set style line 13 lc rgb '#8C6D31' pt 3  dt (4,3)      lw 1.8 ps 0.8
set style line 14 lc rgb '#1B9E9E' pt 1  dt (9,3,2,3)  lw 1.8 ps 0.8
set style line 15 lc rgb '#707070' pt 2  dt (2,3)      lw 1.8 ps 0.8
set style line 16 lc rgb '#4D9221' pt 7  dt (12,3)     lw 1.8 ps 0.45
set style line 17 lc rgb '#2B4C9B' pt 5  dt (6,2)      lw 1.8 ps 0.42
set style line 18 lc rgb '#B35806' pt 9  dt (2,2)      lw 1.8 ps 0.5
# Anchors: base, none (hooks that do nothing), merged, full fine-tuning.
set style line 20 lc rgb '#222222' pt 2 dt 1     lw 1.6 ps 0.7
set style line 21 lc rgb '#777777' pt 1 dt (2,3) lw 1.6 ps 0.7
set style line 22 lc rgb '#555555' pt 3 dt (9,3) lw 1.6 ps 0.7
set style line 23 lc rgb '#999999' pt 3 dt (4,3) lw 1.6 ps 0.7
# More methods than styles: they repeat.
style_of(word_) = int(word_) >= 20 && int(word_) < 24 ? int(word_) : 1 + (int(word_) - 1) % 18

set style line 100 lc rgb '#444444' lw 1
set style line 101 lc rgb '#dddddd' lw 0.8 dt 1
set style line 102 lc rgb '#666666' lw 1.2 dt (5,4)
set border 3 ls 100
set tics nomirror out scale 0.6 tc rgb '#222222'
set grid ls 101 back
set style fill transparent solid 0.16 noborder

# A step of 1, 2 or 5 times a power of ten that divides `span` into at most n parts.
power_(x) = 10.0 ** floor(log10(x))
nice_(x) = x <= power_(x) ? power_(x) : x <= 2 * power_(x) ? 2 * power_(x) : \
    x <= 5 * power_(x) ? 5 * power_(x) : 10 * power_(x)
step_(span, n) = span > 0 ? nice_(real(span) / n) : 1.0

# Pixels turned into screen coordinates.
left_(x)   = real(x) / W
bottom_(y) = real(y) / H
