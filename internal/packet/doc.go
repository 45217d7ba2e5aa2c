// Package packet holds what the parts of the data path hand to one another:
// pooled buffers, the offload description of a packet, and the 5-tuple of an
// IP packet. It knows nothing of protocols beyond the 5-tuple and imports
// nothing of this module.
//
// Three verbs state who owns a buffer. A function that borrows a buffer may
// use it until it returns (or until the next call, where it says so). One that
// takes a buffer owns it from then on and must release it. One that gives a
// buffer leaves it to the caller, who must release it.
package packet
