package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	// maxNodes bounds the nodes that are visited. A file of maxFile bytes has
	// fewer; with aliases it could have any number.
	maxNodes = 1 << 18
	// maxCollected bounds the errors that are kept.
	maxCollected = 1000
)

// at is where a value of the file is.
type at struct {
	node *yaml.Node // nil when the key is absent
	path string     // dotted path of the key; "" for the top level
	bad  bool       // an error was reported for it; no more are wanted
}

// given reports whether the key is there, whatever its value.
func (a *at) given() bool { return a.node != nil }

// ok reports whether the key is there and has the right shape.
func (a *at) ok() bool { return a.node != nil && !a.bad }

func (a *at) place() *at { return a }

// child is the path of a key below a.
func (a *at) child(key string) string {
	if !isPlainKey(key) {
		key = quote(key)
	}
	if a.path == "" {
		return key
	}
	return a.path + "." + key
}

// isPlainKey reports whether key can stand in a path as it is.
func isPlainKey(key string) bool {
	for i := range len(key) {
		if !isNameByte(key[i]) || key[i] == '.' {
			return false
		}
	}
	return key != "" && len(key) <= maxQuoted
}

// target is anything of a raw struct that a node can be decoded into.
type target interface {
	place() *at
	// decode checks the shape of the node at place, and decodes what is in it.
	decode(d *decoder)
}

// object is a raw struct.
type object interface {
	place() *at
	fields() []field
}

// field is a key of an object, and where its value goes: a target or an object.
type field struct {
	key  string
	into interface{ place() *at }
}

// decoder makes the first pass, and collects errors for all of them.
type decoder struct {
	file     string
	errs     Errors
	warnings Errors
	nodes    int // visited so far
}

// full reports whether further errors would be dropped.
func (d *decoder) full() bool { return len(d.errs) >= maxCollected }

// errorf reports an error of the value at a, and marks it as bad.
func (d *decoder) errorf(a *at, format string, args ...any) {
	a.bad = true
	d.report(a.node, a.path, format, args...)
}

// missing reports that the object a lacks a key.
func (d *decoder) missing(a *at, key, why string) {
	d.report(a.node, a.child(key), "is missing: %s", why)
}

// report adds an error at a node, or of the file as a whole if that is nil.
func (d *decoder) report(n *yaml.Node, path, format string, args ...any) {
	if !d.full() {
		d.errs = append(d.errs, d.at(n, path, format, args...))
	}
}

// warnf adds a warning about the value at a.
func (d *decoder) warnf(a *at, format string, args ...any) {
	if len(d.warnings) < maxCollected {
		d.warnings = append(d.warnings, d.at(a.node, a.path, "warning: "+format, args...))
	}
}

func (d *decoder) at(n *yaml.Node, path, format string, args ...any) *Error {
	e := &Error{File: d.file, Key: path, Msg: printable(fmt.Sprintf(format, args...))}
	if n != nil {
		e.Line, e.Col = n.Line, n.Column
	}
	return e
}

// visit counts a node, and reports false when there were too many.
func (d *decoder) visit() bool {
	d.nodes++
	if d.nodes == maxNodes+1 {
		d.report(nil, "", "has more than %d values: its aliases repeat too much", maxNodes)
	}
	return d.nodes <= maxNodes
}

// decode gives the node n to the field value into.
func (d *decoder) decode(into interface{ place() *at }, n *yaml.Node, path string) {
	if !d.visit() {
		return
	}
	// An alias stands for its anchor's value; it cannot stand for another
	// alias. It may stand in itself, but the walk is no deeper than the structs.
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	a := into.place()
	a.node, a.path = n, path
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.errorf(a, "has no value; give it one or remove the key")
		return
	}
	switch into := into.(type) {
	case target:
		into.decode(d)
	case object:
		d.object(into)
	}
}

// object decodes the mapping at o.place().
func (d *decoder) object(o object) {
	a := o.place()
	if a.node.Kind != yaml.MappingNode {
		d.errorf(a, "wants keys with values, not %s", describe(a.node))
		return
	}
	fields := o.fields()
	seen := make(map[string]*yaml.Node, len(fields))
	for i := 0; i+1 < len(a.node.Content); i += 2 {
		k, v := a.node.Content[i], a.node.Content[i+1]
		if !d.visit() || d.full() {
			return
		}
		if k.Kind != yaml.ScalarNode {
			d.report(k, a.path, "has %s as a key; keys are single words", describe(k))
			continue
		}
		if k.ShortTag() == "!!merge" {
			d.report(k, a.child(k.Value), "merge keys are not supported; write the keys out")
			continue
		}
		if first, dup := seen[k.Value]; dup {
			d.report(k, a.child(k.Value), "is there twice; the first is in line %d", first.Line)
			continue
		}
		seen[k.Value] = k
		if f := find(fields, k.Value); f != nil {
			d.decode(f.into, v, a.child(k.Value))
		} else {
			d.report(k, a.child(k.Value), "unknown key%s", d.hint(fields, k.Value))
		}
	}
}

func find(fields []field, key string) *field {
	for i := range fields {
		if fields[i].key == key {
			return &fields[i]
		}
	}
	return nil
}

// hint says what an unknown key may have been meant to be: a similar one of the
// same object, or the same one of another object.
func (d *decoder) hint(fields []field, key string) string {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	if s := didYouMean(key, known); s != "" {
		return s
	}
	var parents []string
	for _, path := range Keys() {
		parent, last := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			parent, last = path[:i], path[i+1:]
		}
		if strings.TrimSuffix(last, "[]") == key {
			parents = append(parents, parent)
		}
	}
	switch {
	case len(parents) != 1: // none, or no way to choose
		return ""
	case parents[0] == "":
		return "; it belongs to the top level"
	}
	return "; it belongs to " + strings.TrimSuffix(parents[0], "[]")
}

// describe names what a node is, for a message that wants something else.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.AliasNode:
		return "an alias"
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return "the text " + quote(n.Value)
	case "!!int", "!!float":
		return "the number " + unquoted(n.Value)
	case "!!bool":
		return "the truth value " + unquoted(n.Value)
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "the date " + unquoted(n.Value)
	}
	return fmt.Sprintf("%s with the tag %s", quote(n.Value), quote(n.Tag))
}

// scalar is a single value.
type scalar struct {
	at
}

func (s *scalar) decode(d *decoder) {
	if s.node.Kind != yaml.ScalarNode {
		d.errorf(&s.at, "wants a single value, not %s", describe(s.node))
	}
}

// scalars is a list of single values.
type scalars struct {
	at
	items []scalar
}

func (l *scalars) decode(d *decoder) {
	if !d.list(&l.at) {
		return
	}
	l.items = make([]scalar, len(l.node.Content))
	for i, n := range l.node.Content {
		d.decode(&l.items[i], n, fmt.Sprintf("%s[%d]", l.path, i))
	}
}

// scalarOrList is a list of single values, of which one alone needs no brackets.
type scalarOrList struct {
	scalars
}

func (l *scalarOrList) decode(d *decoder) {
	if l.node.Kind != yaml.ScalarNode {
		l.scalars.decode(d)
		return
	}
	l.items = make([]scalar, 1)
	d.decode(&l.items[0], l.node, l.path)
}

// objects is a list of objects; P is *T.
type objects[T any, P interface {
	*T
	object
}] struct {
	at
	items []T
}

func (l *objects[T, P]) decode(d *decoder) {
	if !d.list(&l.at) {
		return
	}
	l.items = make([]T, len(l.node.Content))
	for i, n := range l.node.Content {
		d.decode(P(&l.items[i]), n, fmt.Sprintf("%s[%d]", l.path, i))
	}
}

// element returns an empty element, for the key table.
func (l *objects[T, P]) element() object { return P(new(T)) }

// list checks that a is a list that is not empty.
func (d *decoder) list(a *at) bool {
	switch {
	case a.node.Kind == yaml.ScalarNode:
		d.errorf(a, "wants a list, not %s; write it in brackets", describe(a.node))
	case a.node.Kind != yaml.SequenceNode:
		d.errorf(a, "wants a list, not %s", describe(a.node))
	case len(a.node.Content) == 0:
		d.errorf(a, "is an empty list; fill it or remove the key")
	default:
		return true
	}
	return false
}

// Keys returns every key that a file can have, as dotted paths with [] for the
// index of a list, in the order of the reference files.
func Keys() []string {
	return appendKeys(nil, "", new(rawFile))
}

func appendKeys(keys []string, prefix string, o object) []string {
	for _, f := range o.fields() {
		path := prefix + f.key
		switch into := f.into.(type) {
		case object:
			keys = appendKeys(append(keys, path), path+".", into)
		case interface{ element() object }:
			keys = appendKeys(append(keys, path+"[]"), path+"[].", into.element())
		case *scalars:
			keys = append(keys, path+"[]")
		default:
			keys = append(keys, path)
		}
	}
	return keys
}
