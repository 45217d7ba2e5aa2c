package dtls

import (
	"golang.org/x/net/bpf"
)

// numbered is a Socket that has a number in a group that shares an address. The
// Connection IDs that are given out at it begin with the number.
type numbered interface{ Number() int }

// Steering is a program for udp.Config.Steer: a datagram that begins with a
// record with a Connection ID goes to the socket whose number the ID begins with,
// whatever address it comes from. All others, which belong to handshakes or to
// associations without Connection ID, go where the kernel puts their addresses.
func Steering() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: cidOffset, SkipTrue: 4}, // a load beyond the end would give socket 0
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeCID, SkipTrue: 2},
		bpf.LoadAbsolute{Off: cidOffset, Size: 1},
		bpf.RetA{},
		bpf.RetConstant{Val: dialedWorker}, // no socket has this number
	}
}
