package homa

import "slices"

// maxResends bounds the ranges of a message that wait to be sent again. A peer
// asks for each gap by itself.
const maxResends = 64

// outbound is a message being sent.
type outbound struct {
	length      int  // 0: not begun
	unscheduled int  // bytes that need no grant
	granted     int  // bytes that may leave, at least unscheduled
	sent        int  // bytes that left
	written     int  // bytes that Write supplied
	urgent      int  // below this, packets need not be full
	announce    bool // nothing may leave without a grant: an empty packet asks for it
	announced   bool // one has
	short       bool // Write took less than it was given
	content     content
	memory      reservation
	birth       uint64

	resends        []span // sorted, disjoint
	resendBytes    int
	resendPriority uint8
	priority       uint8 // of scheduled data
}

// packetEnd is where the next packet of new data ends: packets are cut where
// the unscheduled bytes end, and one that begins below what is granted is sent
// whole, as the module does.
func (m *outbound) packetEnd(maxData int) int {
	end := min(m.sent+maxData, m.length)
	if m.sent < m.unscheduled && end > m.unscheduled {
		end = m.unscheduled
	}
	if m.written < end && m.urgent > m.sent {
		end = m.written
	}
	return end
}

// ready reports whether new data may leave.
func (m *outbound) ready(maxData int) bool {
	if m.announce {
		return true
	}
	if m.sent >= m.granted || m.sent >= m.written {
		return false
	}
	return m.written >= m.packetEnd(maxData)
}

// left is the number of bytes to send, again or for the first time.
func (m *outbound) left() int { return m.length - m.sent + m.resendBytes }

// resend asks for [start, end) to be sent again, which was sent before.
func (m *outbound) resend(start, end int) {
	if start >= end {
		return
	}
	i := 0
	for i < len(m.resends) && m.resends[i].end < start {
		i++
	}
	j := i
	for j < len(m.resends) && m.resends[j].start <= end {
		start, end = min(start, m.resends[j].start), max(end, m.resends[j].end)
		j++
	}
	if i == j && len(m.resends) >= maxResends {
		return // it will be asked for again
	}
	m.resends = slices.Replace(m.resends, i, j, span{start, end})
	m.resendBytes = 0
	for _, s := range m.resends {
		m.resendBytes += s.end - s.start
	}
}

// nextResend takes the next range of at most maxData bytes to be sent again, and
// the end of the range that it was asked for in.
func (m *outbound) nextResend(maxData int) (s span, end int) {
	s, end = m.resends[0], m.resends[0].end
	if s.end-s.start > maxData {
		s.end = s.start + maxData
		m.resends[0].start = s.end
	} else {
		m.resends = slices.Delete(m.resends, 0, 1)
	}
	m.resendBytes -= s.end - s.start
	return s, end
}

func (m *outbound) clearResends() {
	m.resends, m.resendBytes = m.resends[:0], 0
}
