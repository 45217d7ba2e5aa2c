package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The table is at most 120 columns wide: a title, six contenders and three
// ratios.
const (
	tableWidth  = 120
	titleWidth  = 30
	columnWidth = 10
)

// comparison is a column of ratios to a contender, with its head in two lines.
type comparison struct {
	name, upper, lower string
}

var comparedWith = []comparison{
	{"wireguard-go", "/ wire-", "guard-go"},
	{"Nebula 1.11", "/ Nebula", "1.11"},
	{"Nebula new", "/ Nebula", "new"},
}

// table is what people read.
func (r *results) table() string {
	var b strings.Builder
	r.heading(&b)
	var compared []comparison
	for _, c := range comparedWith {
		if r.has(c.name) && r.has(ours) {
			compared = append(compared, c)
		}
	}
	notes := &footnotes{}
	var section string
	var offload mode
	for i, l := range r.Rows {
		if i == 0 || l.Section != section || l.Offload != offload {
			fmt.Fprintf(&b, "\n%s\n", sectionTitle(l))
			if i == 0 || l.Section != section {
				r.columnHeads(&b, compared)
			}
			section, offload = l.Section, l.Offload
		}
		unit := l.Unit
		fmt.Fprintf(&b, "%s", padRight(l.Title+", "+unit, titleWidth))
		for _, p := range r.Peers {
			fmt.Fprint(&b, padLeft(cellText(l.Cells[p.Name], p, notes), columnWidth))
		}
		for _, c := range compared {
			text := "-"
			if x, ok := l.Ratios[c.name]; ok {
				text = figure(x) + "x"
			}
			fmt.Fprint(&b, padLeft(text, columnWidth))
		}
		fmt.Fprintln(&b)
	}
	if len(notes.list) > 0 {
		fmt.Fprintln(&b)
		for i, text := range notes.list {
			fmt.Fprintln(&b, wrap(fmt.Sprintf("[%d] ", i+1), text))
		}
	}
	r.remarks(&b)
	if table := microTable(r.Micro); table != "" {
		fmt.Fprintf(&b, "\nBenchmarks of the packages\n%s", table)
	}
	if r.MicroError != "" {
		fmt.Fprintln(&b, wrap("\nBenchmarks of the packages: n/a: ", r.MicroError))
	}
	return b.String()
}

func (r *results) has(name string) bool {
	for _, p := range r.Peers {
		if p.Name == name {
			return true
		}
	}
	return false
}

func (r *results) heading(b *strings.Builder) {
	fmt.Fprintf(b, "tougw side by side with others, %s\n%s\n", r.When.Format("2006-01-02 15:04 MST"), r.Machine)
	fmt.Fprintf(b, "Load average %.1f, at the end %.1f; %.0f s taken by the hypervisor, %d runs repeated for it; %.0f s in all\n", r.LoadStart, r.LoadEnd, r.Stolen, r.Repeated, r.Took)
	fmt.Fprintf(b, "Outer packets of %d bytes; medians of %d rounds, throughput runs of %.0f s each.\n", outerMTU, r.Rounds, r.Seconds)
	fmt.Fprintln(b, "Applications, servers and both gateways share this one machine.")
	fmt.Fprintln(b, "Offload on: batches of UDP datagrams cross the links whole; off: the kernel cuts them first, as for a card without it.")
	if r.Note != "" {
		fmt.Fprintln(b, r.Note)
	}
	fmt.Fprintln(b)
	for _, p := range r.Peers {
		var words []string
		for _, text := range []string{p.Version, p.About, p.Details} {
			if text != "" {
				words = append(words, text)
			}
		}
		fmt.Fprintln(b, wrap(padRight(p.Name, 13)+" ", strings.Join(words, "; ")))
	}
	if r.has(ours) {
		fmt.Fprintln(b, "\nRatios: how many times better tougw is; below 1 it is worse.")
	}
}

func sectionTitle(l *line) string {
	switch l.Offload {
	case offloadOn:
		return l.Section + " (offload on)"
	case offloadOff:
		return l.Section + " (offload off)"
	}
	return l.Section
}

// columnHeads writes the names over two lines.
func (r *results) columnHeads(b *strings.Builder, compared []comparison) {
	var upper, lower []string
	for _, p := range r.Peers {
		first, second := splitName(p.Name)
		upper, lower = append(upper, first), append(lower, second)
	}
	for _, c := range compared {
		upper, lower = append(upper, c.upper), append(lower, c.lower)
	}
	for _, heads := range [][]string{upper, lower} {
		line := strings.Repeat(" ", titleWidth)
		for _, h := range heads {
			line += padLeft(h, columnWidth)
		}
		if line = strings.TrimRight(line, " "); line != "" {
			fmt.Fprintln(b, line)
		}
	}
}

// splitName cuts a name in two for a narrow column.
func splitName(name string) (string, string) {
	if i := strings.IndexAny(name, " -"); i > 0 {
		return name[:i], strings.TrimSpace(name[i:])
	}
	return name, ""
}

// cellText is the median, or why there is none: "-" where there cannot be one,
// otherwise n/a with a footnote.
func cellText(c *cell, p *peer, notes *footnotes) string {
	switch {
	case c == nil:
		return "-"
	case len(c.Runs) > 0:
		return figure(c.Median)
	case c.Missing == reasonKernel || c.Missing == reasonOurs:
		return "-"
	}
	return fmt.Sprintf("n/a[%d]", notes.number(p.Name+": "+c.Missing))
}

// footnotes numbers texts in the order of their first use.
type footnotes struct {
	list []string
}

func (f *footnotes) number(text string) int {
	for i, t := range f.list {
		if t == text {
			return i + 1
		}
	}
	f.list = append(f.list, text)
	return len(f.list)
}

// remarks say how much to trust the figures.
func (r *results) remarks(b *strings.Builder) {
	var words []string
	for _, p := range r.Peers {
		if s := r.spread(p.Name); s > 0 {
			words = append(words, fmt.Sprintf("%s %.0f %%", p.Name, 100*s))
		}
	}
	fmt.Fprintln(b)
	if len(words) > 0 {
		fmt.Fprintln(b, wrap("", "From the least to the most of the runs of a row, typically: "+strings.Join(words, ", ")+"."))
	}
	for _, p := range r.Peers {
		for _, f := range p.Failures {
			fmt.Fprintln(b, wrap("Failed: ", fmt.Sprintf("%s, %s, round %d: %s", p.Name, f.What, f.Round, f.Why)))
		}
	}
	fmt.Fprintln(b, wrap("", "s/GB of a gateway is its process's time, of the machine everything but idling, servers and other "+
		"programs included; softirq is the part of the machine's busy time that the kernel's packet work took outside of processes. "+
		"Memory is that of processes: sockets of the kernel are not in it."))
}

// figure is a number with three digits that count.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return thousands(int(math.Round(v)))
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// thousands separates groups of three digits by commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

func padRight(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}

// wrap breaks a text at spaces so that it fits the table; lines after the first
// are indented like the text behind prefix.
func wrap(prefix, text string) string {
	indent := strings.Repeat(" ", utf8.RuneCountInString(prefix))
	line, out := prefix, ""
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > tableWidth {
			out += line + "\n"
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	return out + line
}
