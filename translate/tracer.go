package translate

import (
	"container/heap"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of TracerConfig. All are our choices.
const (
	defaultKept          = 128
	defaultSlowAge       = 10 * time.Minute
	defaultSubscriptions = 16
	defaultTraceQueue    = 1024
)

// ErrSubscriptions says that a Tracer has as many subscriptions as it may.
var ErrSubscriptions = errors.New("translate: too many subscriptions")

// Tracer keeps, of each rule apart, the slowest requests, those that failed here or
// at the server, and those that failed by their client (Result.ofClient), and tells
// subscribers of all. One may serve any number of rules. It is safe for concurrent
// use, and costs next to nothing while nobody listens. A nil Tracer does nothing.
type Tracer struct {
	config    TracerConfig
	listeners atomic.Int32

	mu    sync.Mutex
	subs  []*Subscription
	rules []*ruleTracer
}

// ruleTracer is the part of a Tracer that one rule uses, so that no other takes its
// places. A nil one does nothing.
type ruleTracer struct {
	tracer *Tracer
	name   string
	// floor is the least Record.Total that finds a place among the slowest.
	floor atomic.Int64
	// renew is when the oldest of the slowest loses its place, in Unix nanoseconds; 0
	// while there is room.
	renew atomic.Int64

	mu      sync.Mutex
	slow    slowest
	failed  ring
	refused ring // what failed by its client
}

// NewTracer returns an empty Tracer.
func NewTracer(config TracerConfig) *Tracer {
	usual := func(p *int, value int) {
		if *p <= 0 {
			*p = value
		}
	}
	usual(&config.Slowest, defaultKept)
	usual(&config.Failed, defaultKept)
	usual(&config.Refused, defaultKept)
	usual(&config.Subscriptions, defaultSubscriptions)
	usual(&config.Queue, defaultTraceQueue)
	if config.SlowAge <= 0 {
		config.SlowAge = defaultSlowAge
	}
	return &Tracer{config: config}
}

// of returns the part for the rule with a name.
func (t *Tracer) of(name string) *ruleTracer {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rules {
		if r.name == name {
			return r
		}
	}
	r := &ruleTracer{tracer: t, name: name}
	t.rules = append(t.rules, r)
	return r
}

// Subscription is a live view on a Tracer.
type Subscription struct {
	// C has the records, in the order of their ends. It is closed by Close.
	C <-chan Record

	c       chan Record
	filter  Filter
	tracer  *Tracer
	dropped atomic.Uint64
}

// Subscribe begins a subscription to what the filter selects, which the caller must
// close. The error is ErrSubscriptions.
func (t *Tracer) Subscribe(filter Filter) (*Subscription, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.subs) >= t.config.Subscriptions {
		return nil, ErrSubscriptions
	}
	c := make(chan Record, t.config.Queue)
	s := &Subscription{C: c, c: c, filter: filter, tracer: t}
	t.subs = append(t.subs, s)
	t.listeners.Add(1)
	return s, nil
}

// Dropped is how many records were lost because C was full.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription. A second call does nothing.
func (s *Subscription) Close() {
	t := s.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.subs, s); i >= 0 {
		t.subs = slices.Delete(t.subs, i, i+1)
		t.listeners.Add(-1)
		close(s.c)
	}
}

// wants reports whether a record of a request that ends now would go anywhere.
func (t *ruleTracer) wants(total time.Duration, result Result, now time.Time) bool {
	return t != nil && (result != OK || t.tracer.listeners.Load() > 0 || t.isSlow(total, now))
}

// isSlow reports whether a request may find a place among the slowest.
func (t *ruleTracer) isSlow(total time.Duration, now time.Time) bool {
	renew := t.renew.Load()
	return int64(total) >= t.floor.Load() || renew != 0 && now.UnixNano() >= renew
}

// add takes a copy of r.
func (t *ruleTracer) add(r *Record) {
	if t == nil {
		return
	}
	t.tracer.publish(r)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch end := r.end(); {
	case r.Result.ofClient():
		t.refused.add(r, t.tracer.config.Refused)
	case r.Result != OK:
		t.failed.add(r, t.tracer.config.Failed)
	case t.isSlow(r.Total, end):
		t.keep(r, end)
	}
}

// publish tells subscribers of r.
func (t *Tracer) publish(r *Record) {
	if t.listeners.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.subs {
		if !s.filter.matches(r) {
			continue
		}
		select {
		case s.c <- *r:
		default:
			s.dropped.Add(1)
		}
	}
}

// keep finds r a place among the slowest. It needs mu.
func (t *ruleTracer) keep(r *Record, now time.Time) {
	config := &t.tracer.config
	if len(t.slow) == config.Slowest {
		// Room is made by age first, and else by the fastest.
		old := now.Add(-config.SlowAge)
		fresh := slices.DeleteFunc(t.slow, func(kept Record) bool { return !kept.end().After(old) })
		if aged := len(fresh) < len(t.slow); aged {
			t.slow = fresh
			heap.Init(&t.slow)
		} else if r.Total <= t.slow[0].Total {
			return
		} else {
			heap.Pop(&t.slow)
		}
	}
	heap.Push(&t.slow, *r)
	if len(t.slow) < config.Slowest {
		t.floor.Store(0)
		t.renew.Store(0)
		return
	}
	oldest := slices.MinFunc(t.slow, func(a, b Record) int { return a.end().Compare(b.end()) })
	t.floor.Store(int64(t.slow[0].Total) + 1)
	t.renew.Store(oldest.end().Add(config.SlowAge).UnixNano())
}

// Last returns what is kept that the filter selects, the newest first.
func (t *Tracer) Last(filter Filter) []Record {
	t.mu.Lock()
	rules := slices.Clone(t.rules)
	t.mu.Unlock()
	var all []Record
	for _, r := range rules {
		all = r.last(&filter, all)
	}
	slices.SortStableFunc(all, func(a, b Record) int { return b.Time.Compare(a.Time) })
	return all
}

// last appends what is kept of the rule that the filter selects.
func (t *ruleTracer) last(filter *Filter, all []Record) []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, kept := range [][]Record{t.failed.records, t.refused.records, t.slow} {
		for i := range kept {
			if filter.matches(&kept[i]) {
				all = append(all, kept[i])
			}
		}
	}
	return all
}

// ring has the last records of a kind.
type ring struct {
	records []Record
	next    int // where the next one goes
}

// add takes a copy of r in place of the oldest, if there are as many as may be.
func (l *ring) add(r *Record, most int) {
	if len(l.records) < most {
		l.records = append(l.records, *r)
	} else {
		l.records[l.next] = *r
	}
	l.next = (l.next + 1) % most
}

// slowest is a heap with the fastest request at the top.
type slowest []Record

func (s slowest) Len() int           { return len(s) }
func (s slowest) Less(i, j int) bool { return s[i].Total < s[j].Total }
func (s slowest) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *slowest) Push(x any) { *s = append(*s, x.(Record)) }

// Pop implements heap.Interface.
func (s *slowest) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
