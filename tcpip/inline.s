// The compiler accepts functions without a body, such as those that
// go:linkname completes, in packages with assembly only.
