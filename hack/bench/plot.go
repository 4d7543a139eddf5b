package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A panel is one picture of the plot: the figures of rows over the number of services, both in powers of ten.
type panel struct {
	title string
	// of answers a row's figure and its floor's; ok is false where the row is not for this panel.
	of func(row) (ours, floor time.Duration, ok bool)
}

var panels = []panel{
	{"first sync, wall", func(r row) (time.Duration, time.Duration, bool) {
		return r.Ours.Wall, r.Floor.Wall, strings.HasSuffix(r.Line, " first sync")
	}},
	{"one endpoint changed until packets follow, wall", func(r row) (time.Duration, time.Duration, bool) {
		return r.Ours.Wall, 0, strings.HasSuffix(r.Line, " one endpoint changed")
	}},
	{"one endpoint changed, CPU of the proxy", func(r row) (time.Duration, time.Duration, bool) {
		return r.Ours.CPU, 0, strings.HasSuffix(r.Line, " one endpoint changed")
	}},
}

// The plot's measures, in pixels.
const (
	wide, high  = 340, 260
	left, above = 60, 40
)

var colours = map[string]string{"iptables": "#c0392b", "nftables": "#2471a3"}

// draw answers the proxy's rows as an SVG picture: a line for each mode, floors dashed.
func draw(rows []row) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
		len(panels)*(wide+left)+20, high+above+50)
	for i, p := range panels {
		p.draw(&out, rows, left+i*(wide+left), above)
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func (p panel) draw(out *bytes.Buffer, rows []row, x0, y0 int) {
	lines := map[string][][2]float64{}
	lowX, upX, lowY, upY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	add := func(name string, at int, d time.Duration) {
		if d == 0 {
			return
		}
		x, y := math.Log10(float64(at)), math.Log10(d.Seconds()*1000)
		lines[name] = append(lines[name], [2]float64{x, y})
		lowX, upX, lowY, upY = min(lowX, x), max(upX, x), min(lowY, y), max(upY, y)
	}
	for _, r := range rows {
		if ours, floor, ok := p.of(r); ok {
			mode, _, _ := strings.Cut(r.Line, " ")
			add(mode, r.At, ours)
			add(mode+" floor", r.At, floor)
		}
	}
	if len(lines) == 0 {
		return
	}
	lowX, upX, lowY, upY = math.Floor(lowX), math.Ceil(upX), math.Floor(lowY), math.Ceil(upY)
	upX, upY = max(upX, lowX+1), max(upY, lowY+1)
	place := func(x, y float64) (float64, float64) {
		return float64(x0) + (x-lowX)/(upX-lowX)*(wide-20), float64(y0) + high - (y-lowY)/(upY-lowY)*high
	}
	fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", x0, y0-16, p.title)
	for y := lowY; y <= upY; y++ {
		px, py := place(lowX, y)
		fmt.Fprintf(out, "<line x1=\"%.0f\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\" stroke=\"#ddd\"/><text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">%g ms</text>\n",
			px, py, px+wide-20, py, px-4, py+4, math.Pow(10, y))
	}
	for x := lowX; x <= upX; x++ {
		px, py := place(x, lowY)
		fmt.Fprintf(out, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">%g</text>\n", px, py+16, math.Pow(10, x))
	}
	fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">services of three endpoints</text>\n", x0+wide/2, y0+high+32)
	var names []string
	for name := range lines {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		mode, floor, _ := strings.Cut(name, " ")
		dash := ""
		if floor != "" {
			dash = " stroke-dasharray=\"4 3\""
		}
		var points []string
		for _, at := range lines[name] {
			px, py := place(at[0], at[1])
			points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
		}
		fmt.Fprintf(out, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", strings.Join(points, " "), colours[mode], dash)
		fmt.Fprintf(out, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\"%s/><text x=\"%d\" y=\"%d\">%s</text>\n",
			x0+8, y0+8+14*i, x0+30, y0+8+14*i, colours[mode], dash, x0+34, y0+12+14*i, name)
	}
}
