// Package config reads the YAML file of tougw into a typed [Config].
//
// [Load] reads a file, checks it and everything that it names (certificates,
// keys), and either gives a complete Config or an [Errors] that lists every
// defect of the file with its line, column and key. Parsing is strict: unknown
// and duplicate keys, wrong types, values out of their range, dangling names
// and impossible combinations are errors, so that a Config that was loaded
// can be run without further questions. [Parse] does the same for bytes, and
// looks at no other file.
//
// The work is done in three passes. The first (decode.go) walks the YAML nodes
// along the structs of raw.go and finds unknown keys and wrong shapes; the
// second (parse.go) turns scalars into values; the third (check.go, files.go)
// looks at combinations and at files. All of them add to one list, so that one
// run shows all that is wrong.
//
// The package opens no device, socket or route, and knows nothing of those who
// use the values. Nothing in it is changed after Load: a Config may be read
// from any goroutine.
package config
