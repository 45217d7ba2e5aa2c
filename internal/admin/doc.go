// Package admin is how people and programs ask a running daemon: the documents
// of status and flows, a server for them on a UNIX socket and over local HTTP,
// and a client. It sees only snapshots that it is handed, and changes nothing.
package admin
