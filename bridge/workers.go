package bridge

import (
	"runtime"
	"sync"
)

// workers run the pumps that have something to do. They are few and stay: a
// goroutine for each event would begin with a small stack and have to copy it
// several times on its way down through two stacks to the socket, which was an
// eighth of a gateway's time under small messages. A pump never blocks for long, so
// a few workers serve any number of flows.
type workers struct {
	max int // awake at a time

	mu      sync.Mutex
	queue   pumpList // waiting to be run
	long    pumpList // had their turn and have more to do: for workers only
	awake   int
	helpers int       // goroutines between begin and end that run no pump
	idle    []*worker // the last one that went to sleep wakes first: its stack is warm
	closed  bool
}

// pumpList is linked by pump.next.
type pumpList struct{ head, tail *pump }

func (l *pumpList) push(p *pump) {
	p.next = nil
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.next = p
	}
	l.tail = p
}

func (l *pumpList) pop() *pump {
	p := l.head
	if p == nil {
		return nil
	}
	if l.head = p.next; l.head == nil {
		l.tail = nil
	}
	p.next = nil
	return p
}

// worker is one goroutine of workers.
type worker struct {
	wake chan struct{} // holds a token for a sleeping worker that is to go on
}

func newWorkers() *workers {
	// More than processors, since a worker may wait for a lock of a stack or
	// for room in a socket; not many more, since each costs a thread's switch.
	return &workers{max: 2 * runtime.GOMAXPROCS(0)}
}

// run has p run soon. It takes no lock but that of the workers, and allocates
// nothing once as many workers exist as are needed.
func (ws *workers) run(p *pump) {
	ws.mu.Lock()
	ws.queue.push(p)
	// A helper takes one pump without delay; more would wait for each other.
	if ws.helpers > 0 && ws.queue.head == p {
		ws.mu.Unlock()
		return
	}
	ws.start()
}

// start has a worker look at the queue. It unlocks mu.
func (ws *workers) start() {
	if ws.awake >= ws.max {
		ws.mu.Unlock()
		return
	}
	ws.awake++
	n := len(ws.idle)
	if n == 0 {
		ws.mu.Unlock()
		go ws.work(&worker{wake: make(chan struct{}, 1)})
		return
	}
	w := ws.idle[n-1]
	ws.idle = ws.idle[:n-1]
	ws.mu.Unlock()
	w.wake <- struct{}{}
}

// work runs pumps, and sleeps while there are none.
func (ws *workers) work(w *worker) {
	for {
		ws.mu.Lock()
		p := ws.queue.pop()
		if p == nil {
			p = ws.long.pop()
		}
		if p == nil {
			ws.awake--
			if ws.closed {
				ws.mu.Unlock()
				return
			}
			ws.idle = append(ws.idle, w)
			ws.mu.Unlock()
			if _, more := <-w.wake; !more {
				return
			}
			continue
		}
		ws.mu.Unlock()
		if p.run() {
			ws.mu.Lock()
			ws.long.push(p) // others have their turn first
			ws.mu.Unlock()
		}
	}
}

// close lets the workers go once no pump is left to run.
func (ws *workers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	for _, w := range ws.idle {
		close(w.wake)
	}
	ws.idle = nil
}

// begin makes the calling goroutine, which brings events, a helper: it runs the
// pumps that its events wake, in help and at the latest in end, where a worker
// would have to be woken for them, on another processor as a rule. It must not
// hold a lock then that a stream takes, and must not block for long in between.
func (ws *workers) begin() {
	ws.mu.Lock()
	ws.helpers++
	ws.mu.Unlock()
}

// help runs the pumps that wait.
func (ws *workers) help() {
	ws.mu.Lock()
	ws.runAll()
	ws.mu.Unlock()
}

// end is help and ends begin.
func (ws *workers) end() {
	ws.mu.Lock()
	ws.runAll()
	ws.helpers--
	ws.mu.Unlock()
}

// runAll runs the pumps that wait, and leaves those to the workers that have
// more to do than their turn allows. mu is held, but not while a pump runs; nobody
// relies on this helper meanwhile.
func (ws *workers) runAll() {
	for p := ws.queue.pop(); p != nil; p = ws.queue.pop() {
		ws.helpers--
		ws.mu.Unlock()
		more := p.run()
		ws.mu.Lock()
		if more {
			ws.long.push(p)
			ws.start()
			ws.mu.Lock()
		}
		ws.helpers++
	}
}
