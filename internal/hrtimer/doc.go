// Package hrtimer has a timer that fires when it should.
//
// The timers of the runtime of Go wake a process that sleeps only with the resolution
// of epoll_wait, which is a millisecond: one of 0.2 ms fires after 1 ms as a rule. The
// timers of this package are the kernel's (timerfd_create on Linux), some 50 µs late
// for a process that is not privileged; elsewhere they are those of the runtime.
package hrtimer
