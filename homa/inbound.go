package homa

import "slices"

// maxGaps bounds the gaps of a message. Half of the packets of a message of
// 1,000,000 bytes lost, every other one, make 352.
const maxGaps = 1024

// maxAllGaps bounds those of all messages: 16 bytes each.
const maxAllGaps = 1 << 18

// span is a range of bytes of a message.
type span struct{ start, end int }

// inbound is a message being received: what came, what is missing, and what may
// still come.
type inbound struct {
	length      int // 0: nothing is known of it
	end         int // behind the last byte that came
	received    int // bytes that came
	read        int // bytes handed out
	granted     int // the sender may send below this
	unscheduled int // what it sends without being granted
	gaps        []span
	content     content
	memory      reservation
	window      int  // bytes that may be held
	largest     int  // packet that came, in bytes of data
	dropped     bool // something came that was beyond the window
	round       resendRound
	announced   int // bytes that the last Readable told of
	lowWater    int // bytes that Readable waits for

	// Granting, see granter.
	grantable bool // counts in granter.incoming
	managed   bool // active or waiting
	parked    bool // its reader is behind: not managed until it reads
	slot      int  // in granter.active, -1: not there
	incoming  int  // its part of granter.incoming
	birth     uint64
}

// resendRound is one time of asking for what is missing. A sender that is only slow
// has most of it on its way, and would send all of it once more for each round;
// so a round asks for little, and for more only after all that the one before
// asked for has come.
type resendRound struct {
	budget   int // bytes that a round may ask for
	left     int // that this one still may
	asked    int // bytes that it asked for
	received int // of the message when it began
	from     int // where to look for what is missing
}

const (
	firstRound = 20_000
	lastRound  = 1 << 20
)

// begin starts a round with the message at received bytes.
func (r *resendRound) begin(received int) {
	if r.asked > 0 && received-r.received >= r.asked {
		r.budget = min(2*r.budget, lastRound)
	} else {
		r.budget = firstRound
	}
	*r = resendRound{budget: r.budget, left: r.budget, received: received}
}

// take counts a range that the round asks for and cuts it to what is left.
func (r *resendRound) take(s span) span {
	s.end = min(s.end, s.start+r.left)
	r.left -= s.end - s.start
	r.asked += s.end - s.start
	r.from = s.end
	return s
}

// limit is where the receive window ends.
func (m *inbound) limit() int { return min(m.length, m.read+m.window) }

// grantLimit is what may be granted at most: the sender sends a packet whole that
// begins below, and that has to fit the window.
func (m *inbound) grantLimit() int {
	limit := m.limit()
	if limit < m.length {
		limit = max(limit-m.largest, m.read+m.window/2)
	}
	return limit
}

// enough is how many bytes Readable waits for. The sender must not have to wait for
// the reader meanwhile.
func (m *inbound) enough() int {
	n := m.lowWater
	if m.window < m.length {
		n = min(n, m.window/4)
	}
	return max(n, 1)
}

// complete reports whether the whole message has come.
func (m *inbound) complete() bool { return m.length > 0 && m.received == m.length }

// inOrder is the number of bytes from the start of the message without a gap.
func (m *inbound) inOrder() int {
	if len(m.gaps) > 0 {
		return m.gaps[0].start
	}
	return m.end
}

// expected is the end of what ought to be here: what was granted, as far as the
// window goes.
func (m *inbound) expected() int { return min(m.granted, m.limit()) }

// satisfied reports that nothing is missing of what may have been sent.
func (m *inbound) satisfied() bool { return len(m.gaps) == 0 && m.end >= m.expected() }

// accepted is the outcome of inbound.add.
type accepted uint8

const (
	acceptedNew accepted = iota
	acceptedDuplicate
	acceptedTooManyGaps
)

// add takes the n bytes b of the message at the offset; b is nil for a virtual
// message. It makes no gap if there are most of them already. Bytes that are here already are left as they are, so
// a packet may overlap what came before in any way.
func (m *inbound) add(offset, n int, b []byte, most int) accepted {
	end := offset + n
	if n == 0 {
		return acceptedDuplicate
	}
	m.largest = max(m.largest, n)
	before := m.received
	switch {
	case offset > m.end:
		if len(m.gaps) >= most {
			return acceptedTooManyGaps
		}
		m.gaps = append(m.gaps, span{m.end, offset})
		m.keep(offset, end, offset, b)
		m.end = end
	case end > m.end:
		if !m.fill(offset, m.end, offset, b, most) {
			return acceptedTooManyGaps
		}
		m.keep(m.end, end, offset, b)
		m.end = end
	default:
		if !m.fill(offset, end, offset, b, most) {
			return acceptedTooManyGaps
		}
	}
	if m.received == before {
		return acceptedDuplicate
	}
	return acceptedNew
}

// keep stores [start, end) of the packet data b, whose first byte is at offset.
func (m *inbound) keep(start, end, offset int, b []byte) {
	m.received += end - start
	if b != nil {
		m.content.put(start, b[start-offset:end-offset])
	}
}

// fill keeps what of [start, end) lies in gaps.
func (m *inbound) fill(start, end, offset int, b []byte, most int) bool {
	i, _ := slices.BinarySearchFunc(m.gaps, start, func(g span, start int) int { return g.end - start - 1 })
	for i < len(m.gaps) && m.gaps[i].start < end {
		g := m.gaps[i]
		from, to := max(start, g.start), min(end, g.end)
		switch {
		case from == g.start && to == g.end:
			m.gaps = slices.Delete(m.gaps, i, i+1)
		case from == g.start:
			m.gaps[i].start = to
			i++
		case to == g.end:
			m.gaps[i].end = from
			i++
		default:
			if len(m.gaps) >= most {
				return false
			}
			m.gaps[i].end = from
			m.gaps = slices.Insert(m.gaps, i+1, span{to, g.end})
			i += 2
		}
		m.keep(from, to, offset, b)
	}
	return true
}

// missing returns the first range from the offset on that ought to be here and is
// not.
func (m *inbound) missing(from int) (span, bool) {
	i, _ := slices.BinarySearchFunc(m.gaps, from, func(g span, from int) int { return g.end - from - 1 })
	if i < len(m.gaps) {
		return span{max(from, m.gaps[i].start), m.gaps[i].end}, true
	}
	if from = max(from, m.end); from < m.expected() {
		return span{from, m.expected()}, true
	}
	return span{}, false
}
