package sim

import (
	"cmp"
	"slices"
)

// picos is simulated time in picoseconds since the start: a byte on a link of
// 40 Gbit/s takes 200 of them, so no sum is ever rounded.
type picos int64

const (
	nanosecond  picos = 1000
	microsecond       = 1000 * nanosecond
	second            = 1000 * 1000 * microsecond
)

// The calendar's days are 2 ns long and its year is 33 µs, longer than any
// delay that packets meet; only timers and the next messages lie beyond.
const (
	dayShift = 11
	yearDays = 1 << 14
)

// event is something that will happen. Events of one instant happen in the
// order in which they were scheduled.
type event struct {
	at   picos
	seq  uint32 // compared modulo 2^32: far fewer events are pending at a time
	kind eventKind
	arg  uint32 // index of what it happens to
}

type eventKind uint8

func (e *event) before(f *event) bool {
	return e.at < f.at || e.at == f.at && int32(e.seq-f.seq) < 0
}

func compareEvents(e, f event) int {
	if c := cmp.Compare(e.at, f.at); c != 0 {
		return c
	}
	return cmp.Compare(int32(e.seq-f.seq), 0)
}

// calendar is a calendar queue: a ring of days, each a list of what happens in
// it, for the coming year; today's events sorted; and a heap for what is later.
// Storage is kept, so that after a while nothing is allocated.
type calendar struct {
	days   [yearDays]int32 // first entry of the day, or 0
	today  int64           // number of the day that is being served
	events []event         // of today, sorted
	next   int             // first of events that has not happened
	count  int             // events in days
	late   []event
	seq    uint32

	entries []entry // entry 0 is not used
	unused  int32   // first entry of those that are in no day, or 0
}

// entry is an event in the list of its day.
type entry struct {
	event
	next int32
}

func dayOf(at picos) int64 { return int64(at >> dayShift) }

// push schedules an event, no earlier than the one that was popped last.
func (c *calendar) push(at picos, kind eventKind, arg uint32) {
	e := event{at: at, seq: c.seq, kind: kind, arg: arg}
	c.seq++
	switch day := dayOf(at); {
	case day <= c.today:
		c.insertToday(e)
	case day < c.today+yearDays:
		c.put(e)
	default:
		c.pushLate(e)
	}
}

func (c *calendar) put(e event) {
	i := c.unused
	if i != 0 {
		c.unused = c.entries[i].next
	} else {
		if len(c.entries) == 0 {
			c.entries = append(c.entries, entry{})
		}
		i = int32(len(c.entries))
		c.entries = append(c.entries, entry{})
	}
	day := &c.days[dayOf(e.at)&(yearDays-1)]
	c.entries[i] = entry{event: e, next: *day}
	*day = i
	c.count++
}

// insertToday keeps the rest of today sorted. The new event usually belongs
// near the end, and days are short.
func (c *calendar) insertToday(e event) {
	day := append(c.events, e)
	c.events = day
	i := len(day) - 1
	for ; i > c.next && e.before(&day[i-1]); i-- {
		day[i] = day[i-1]
	}
	day[i] = e
}

// pop takes the next event that is not later than until, if there is one. What is
// pushed after it found none must not be earlier than until.
func (c *calendar) pop(until picos) (event, bool) {
	for c.next == len(c.events) {
		if c.today >= dayOf(until) {
			return event{}, false
		}
		c.turn(dayOf(until))
	}
	if e := c.events[c.next]; e.at <= until {
		c.next++
		return e, true
	}
	return event{}, false
}

// turn leaves today, whose events have all happened, for the next day, or for a
// later one up to last if nothing happens before.
func (c *calendar) turn(last int64) {
	c.today++
	if c.count == 0 {
		if len(c.late) > 0 {
			last = min(last, dayOf(c.late[0].at))
		}
		c.today = max(c.today, last)
	}
	for len(c.late) > 0 && dayOf(c.late[0].at) < c.today+yearDays {
		c.put(c.popLate())
	}
	c.events, c.next = c.events[:0], 0
	day := &c.days[c.today&(yearDays-1)]
	for i := *day; i != 0; {
		entry := &c.entries[i]
		c.events = append(c.events, entry.event)
		following := entry.next
		entry.next, c.unused = c.unused, i
		i = following
		c.count--
	}
	*day = 0
	sortEvents(c.events)
}

func sortEvents(day []event) {
	if len(day) > 24 {
		slices.SortFunc(day, compareEvents)
		return
	}
	for i := 1; i < len(day); i++ {
		e := day[i]
		j := i
		for ; j > 0 && e.before(&day[j-1]); j-- {
			day[j] = day[j-1]
		}
		day[j] = e
	}
}

// pushLate and popLate keep a binary heap by hand: container/heap would
// allocate for each event.
func (c *calendar) pushLate(e event) {
	h := append(c.late, e)
	c.late = h
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

func (c *calendar) popLate() event {
	h := c.late
	first, last := h[0], len(h)-1
	e := h[last]
	h = h[:last]
	c.late = h
	if last == 0 {
		return first
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].before(&h[child]) {
			child++
		}
		if !h[child].before(&e) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = e
	return first
}
