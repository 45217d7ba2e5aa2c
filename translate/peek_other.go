//go:build !unix

package translate

// stale reports that the server has closed a connection that nobody uses. Here only
// the next request finds out.
func (c *serverConn) stale() bool { return false }
