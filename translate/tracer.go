package translate

// Tracer keeps the slowest and the failed requests, and tells subscribers of all.
// One may serve any number of rules. It is safe for concurrent use, and costs
// next to nothing while nobody listens.
type Tracer struct{}

// NewTracer returns an empty Tracer.
func NewTracer(config TracerConfig) *Tracer { return &Tracer{} }

// Subscription is a live view on a Tracer.
type Subscription struct {
	// C has the records, in the order of their ends. It is closed by Close.
	C <-chan Record
}

// Subscribe begins a subscription to what the filter selects, which the caller must
// close. The error says that there are too many.
func (t *Tracer) Subscribe(filter Filter) (*Subscription, error) { return nil, nil }

// Dropped is how many records were lost because C was full.
func (s *Subscription) Dropped() uint64 { return 0 }

// Close ends the subscription. A second call does nothing.
func (s *Subscription) Close() {}

// Last returns what is kept, the slowest and the failed, that the filter selects,
// the newest first.
func (t *Tracer) Last(filter Filter) []Record { return nil }
