package tcpip

// Turn is told when a goroutine that brings packets to a stack begins with a
// batch of them, after each, and when it is done. The stack works on a segment
// in the goroutine that brings it, so what the functions of SetNotify schedule
// meanwhile can be done by that goroutine too, in Step, without waking another;
// and what would be sent bit by bit can leave together at End. It is called
// from several goroutines, each of which ends its turn before it begins another.
// No lock of the stack is held.
type Turn interface {
	Begin()
	Step()
	End()
}

type noTurn struct{}

func (noTurn) Begin() {}
func (noTurn) Step()  {}
func (noTurn) End()   {}
